"""`services.json`: how the other commands of this machine find a running `orrery serve`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime
from uuid import UUID

import psutil
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded.failures import explained
from app.embedded.leftovers import runs
from app.embedded.lock import lock_holder
from app.embedded.places import SERVICES_FILE
from app.embedded.private import private_folder, write_private
from app.embedded.services import Services

_CLOCK_S = 2.0  # how precisely it is known when a process began


class ServicesFile(BaseModel):
    """What `serve` tells. The URLs of the services carry passwords, hence mode 0600.

    `owned` names the services that end with it, as in `Services`. `master_keys` are the ids of those it was
    started with; none where an earlier version did not tell.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    pid: int = Field(gt=0)
    api_url: str
    database_url: str = Field(repr=False)
    migration_url: str = Field(repr=False)
    redis_url: str = Field(repr=False)
    started_at: AwareDatetime
    owned: tuple[str, ...] = ()
    master_keys: tuple[UUID, ...] = ()


def write_services_file(
    settings: Settings, services: Services, *, api_url: str, master_keys: Iterable[UUID] = ()
) -> ServicesFile:
    """Announces this process in the run folder; replaces what another one announced there.

    Raises:
        Misconfigured: the folder cannot be written.
    """
    content = ServicesFile(
        pid=os.getpid(),
        api_url=api_url,
        database_url=services.database_url,
        migration_url=services.migration_url,
        redis_url=services.redis_url,
        started_at=datetime.now(UTC),
        owned=services.owned,
        master_keys=tuple(master_keys),
    )
    with explained(settings.data_dir):
        folder = settings.run_dir.resolve()
        folder.parent.mkdir(parents=True, exist_ok=True)
        write_private(private_folder(folder) / SERVICES_FILE, content.model_dump_json(indent=2) + "\n")
    return content


def read_services_file(settings: Settings) -> ServicesFile | None:
    """What the running `serve` announced; None if there is no file, or its process is dead.

    A process that got the dead one's number later is not taken for it.

    Raises:
        Misconfigured: the file belongs to another user or to another version.
    """
    path = settings.run_dir / SERVICES_FILE
    with explained(settings.data_dir):
        try:
            content = ServicesFile.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise Misconfigured(
                f"{str(path)!r} was not written by this version of Orrery: restart 'orrery serve'."
            ) from error
    return content if _lives(content, settings) else None


def remove_services_file(settings: Settings) -> None:
    """Takes back what this process announced; leaves the announcement of another process alone."""
    path = settings.run_dir / SERVICES_FILE
    with explained(settings.data_dir):
        try:
            content = ServicesFile.model_validate_json(path.read_bytes())
        except (FileNotFoundError, ValidationError):
            return
        if content.pid == os.getpid():
            path.unlink(missing_ok=True)


def _lives(content: ServicesFile, settings: Settings) -> bool:
    """Its process began before it announced itself, or, where the clock was set since, holds the lock."""
    try:
        process = psutil.Process(content.pid)
        if not runs(process):
            return False
        began = process.create_time()
    except psutil.Error:
        return False
    if began <= content.started_at.timestamp() + _CLOCK_S:
        return True
    return lock_holder(settings.run_dir / "lock") == str(content.pid)
