"""Monthly partitions of what runs tell and do: made ahead of time, and dropped when they are too old."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy import text

from app.db.session import Database
from app.services.runs.retention import drop_old_logs

logger = structlog.get_logger(__name__)

MONTHS_AHEAD = 2
_EVERY_S = 6 * 3600
_RETRY_S = 60
_ENSURE = text("SELECT orrery_ensure_partitions(:ahead)")


async def ensure_partitions(database: Database) -> None:
    """Makes this month's partitions and those of the next `MONTHS_AHEAD`; repeating it is free."""
    async with database.no_ones_work() as session:
        await session.execute(_ENSURE, {"ahead": MONTHS_AHEAD})


async def keep_partitions(database: Database, retention_days: int = 0) -> None:
    """Ensures them for as long as the process lives, and drops logs after `retention_days` (0: never).

    Until it succeeds, the default partition takes rows, and old ones stay.
    """
    while True:
        try:
            await ensure_partitions(database)
            if retention_days:
                await drop_old_logs(database, days=retention_days)
            await asyncio.sleep(_EVERY_S)
        except Exception as error:
            logger.warning("partitions_not_kept", error=repr(error))
            await asyncio.sleep(_RETRY_S)
