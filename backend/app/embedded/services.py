"""Opens PostgreSQL and Redis: the ones that the settings name, or embedded ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from pydantic import SecretStr

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded.binaries import postgres_programs, redis_program
from app.embedded.cluster import APP_ROLE, DATABASE, OWNER, ensure_cluster, ensure_database
from app.embedded.failures import explained
from app.embedded.lock import hold_lock
from app.embedded.places import SERVICES_FILE, SYSTEM_DIR, Places, find_places, make_data_folder
from app.embedded.ports import LOOPBACK
from app.embedded.postgres import Postgres
from app.embedded.private import kept_secret
from app.embedded.redis import Redis
from app.embedded.supervisor import Lost, log_lost, supervised

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """Where the services answer. The URLs carry passwords, so the representation hides them.

    `database_url` is for the application (no superuser, row-level security applies), `migration_url` for
    the owner of the schema. `owned` names what we started: any of "postgresql", "redis".
    """

    database_url: str = field(repr=False)
    migration_url: str = field(repr=False)
    redis_url: str = field(repr=False)
    owned: tuple[str, ...] = ()


@asynccontextmanager
async def open_services(
    settings: Settings, *, system_dir: Path = SYSTEM_DIR, lost: Lost = log_lost
) -> AsyncIterator[Services]:
    """Runs the embedded services inside the block; real ones that the settings name are passed through.

    With anything embedded, the data folder is locked until the end. `system_dir` is where programs and
    data go that an unprivileged user must reach; only root uses it. `lost` is called when a service keeps
    dying. To be entered in the event loop of a thread that lives until the end, because the services are
    told to die with that thread.

    Raises:
        Misconfigured: one sentence with the remedy: folder in use or not writable, disk full, a program
            missing, or a service that does not start.
    """
    database = _given(settings.database_url)
    migration = _given(settings.database_migration_url)
    redis = _given(settings.redis_url)
    if migration and not database:
        raise Misconfigured(
            "ORRERY_DATABASE_MIGRATION_URL is set without ORRERY_DATABASE_URL: set both, or neither."
        )
    async with AsyncExitStack() as stack:
        owned: list[str] = []
        if not database or not redis:
            with explained(settings.data_dir):
                places = await _enter(stack, settings.data_dir, system_dir=system_dir)
                if not database:
                    database, migration = await _open_postgres(stack, places, settings, lost)
                    owned.append("postgresql")
                if not redis:
                    redis = await _open_redis(stack, places, settings, lost)
                    owned.append("redis")
        yield Services(
            database_url=database,
            migration_url=migration or database,
            redis_url=redis,
            owned=tuple(owned),
        )


def _given(url: SecretStr | None) -> str:
    return url.get_secret_value().strip() if url else ""


async def _enter(stack: AsyncExitStack, data_dir: Path, *, system_dir: Path) -> Places:
    """Locks the data folder; afterwards nobody else uses it, and what is left of others is stale."""
    data = make_data_folder(data_dir)
    stack.enter_context(hold_lock(data / "run" / "lock"))
    (data / "run" / SERVICES_FILE).unlink(missing_ok=True)
    places = find_places(data, system_dir=system_dir)
    if places.relocated:
        # a copy of the data folder links to the same cluster
        stack.enter_context(hold_lock(places.home / "lock"))
        log.info("services live outside the private data folder", data=str(data), home=str(places.home))
    return places


async def _open_postgres(
    stack: AsyncExitStack, places: Places, settings: Settings, lost: Lost
) -> tuple[str, str]:
    timeout_s = settings.embedded_start_timeout_s
    owner_password = kept_secret(places.secrets / "postgres_owner")
    app_password = kept_secret(places.secrets / "postgres_app")
    programs = await asyncio.to_thread(postgres_programs, places)
    await ensure_cluster(places, programs=programs, password=owner_password, timeout_s=timeout_s)
    server = Postgres(places=places, programs=programs, password=owner_password, timeout_s=timeout_s)
    port = await stack.enter_async_context(supervised(server, restarts=settings.embedded_restarts, lost=lost))
    await ensure_database(port, owner_password=owner_password, app_password=app_password)
    place = f"{LOOPBACK}:{port}/{DATABASE}"
    return f"postgresql://{APP_ROLE}:{app_password}@{place}", f"postgresql://{OWNER}:{owner_password}@{place}"


async def _open_redis(stack: AsyncExitStack, places: Places, settings: Settings, lost: Lost) -> str:
    password = kept_secret(places.secrets / "redis")
    program = await asyncio.to_thread(redis_program, places)
    server = Redis(
        places=places,
        program=program,
        password=password,
        timeout_s=settings.embedded_start_timeout_s,
    )
    port = await stack.enter_async_context(supervised(server, restarts=settings.embedded_restarts, lost=lost))
    return f"redis://:{password}@{LOOPBACK}:{port}/0"
