"""How `orrery serve` ended when nobody asked it to: kept for the doctor."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from app.core.config import Settings
from app.core.errors import AppError
from app.embedded import ServiceLost, write_private


class Crash(BaseModel):
    """When, and why, in one sentence."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: AwareDatetime
    reason: str


def crash_path(settings: Settings) -> Path:
    return settings.data_dir / "logs" / "last_crash.json"


@contextmanager
def crashes_noted(settings: Settings) -> Iterator[None]:
    """Notes what ends the block and is not a refusal to start; lets it pass."""
    try:
        yield
    except ServiceLost as error:
        _note(settings, error.detail)
        raise
    except AppError:
        raise
    except Exception as error:
        _note(settings, f"{type(error).__name__}: {error}")
        raise


def _note(settings: Settings, reason: str) -> None:
    crash = Crash(at=datetime.now(UTC), reason=reason[:1000])
    with suppress(OSError):  # the disk may be what it died of
        write_private(crash_path(settings), crash.model_dump_json() + "\n")


def read_crash(settings: Settings) -> Crash | None:
    try:
        return Crash.model_validate_json(crash_path(settings).read_bytes())
    except (OSError, ValidationError):
        return None
