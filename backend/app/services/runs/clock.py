"""The database's clock was set back: what was planned by the later time would wait until it comes again.

A row that was written in the future proves it. Nobody's work is taken away: a living holder prolongs its
lease thrice per lease, and every write is fenced.
"""

from __future__ import annotations

import structlog
from sqlalchemy import text

from app.db.session import Database

logger = structlog.get_logger(__name__)

_DUE = text(
    """
    UPDATE work_items
    SET due_at = now() + greatest(due_at - updated_at, interval '0'), updated_at = now()
    WHERE state IN ('queued', 'running') AND updated_at > now() + interval '5 seconds'
    RETURNING id
    """
)
_LEASES = {
    table: text(
        f"UPDATE {table} SET lease_until = now() + make_interval(secs => :lease)"  # noqa: S608  (ours)
        " WHERE finished_at IS NULL AND lease_until > now() + make_interval(secs => 2 * :lease) RETURNING id"
    )
    for table in ("work_items", "agent_runs")
}


async def mend_times(database: Database, *, lease_s: float) -> int:
    """Brings plans and leases of the future back to the present; answers how many rows that were."""
    async with database.system_work() as session:
        mended = len((await session.execute(_DUE)).all())
        for statement in _LEASES.values():
            mended += len((await session.execute(statement, {"lease": lease_s})).all())
    if mended:
        logger.warning("clock_was_set_back", rows=mended)
    return mended
