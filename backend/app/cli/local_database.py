"""The database as commands open it that change something on the machine itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from app.core.config import Settings
from app.db.connection import open_engine
from app.db.session import Database, make_database


@asynccontextmanager
async def open_database(settings: Settings, url: str) -> AsyncIterator[Database]:
    """For a few statements, none of which queues work: nobody could be woken."""
    prepared = settings.database_prepared_statements
    async with open_engine(url, pool_size=2, prepared=prepared) as engine:
        yield make_database(engine, _wake_nobody)


async def _wake_nobody(queue: str) -> None:
    raise RuntimeError(f"this command queues nothing, but {queue!r} was to be woken")
