"""Monthly partitions of run events and steps, made ahead of time."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy import text

from app.db.session import Database

logger = structlog.get_logger(__name__)

MONTHS_AHEAD = 2
_EVERY_S = 6 * 3600
_RETRY_S = 60
_ENSURE = text("SELECT orrery_ensure_partitions(:ahead)")


async def ensure_partitions(database: Database) -> None:
    """Makes this month's partitions and those of the next `MONTHS_AHEAD`; repeating it is free."""
    async with database.no_ones_work() as session:
        await session.execute(_ENSURE, {"ahead": MONTHS_AHEAD})


async def keep_partitions(database: Database) -> None:
    """Ensures them for as long as the process lives. Until it succeeds, the default partition takes rows."""
    while True:
        try:
            await ensure_partitions(database)
            await asyncio.sleep(_EVERY_S)
        except Exception as error:
            logger.warning("partitions_not_made", error=repr(error))
            await asyncio.sleep(_RETRY_S)
