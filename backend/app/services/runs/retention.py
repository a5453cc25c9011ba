"""How long events, steps and checkpoints of runs are kept.

They go by whole months, which are partitions: dropping one costs next to nothing. A month goes when it is
over, and the last of its runs ended, long enough ago. Which months are gone is stored before the first row
goes, so that nobody takes what is left of a log for all of it.
"""

from __future__ import annotations

import time
from datetime import date
from uuid import UUID

import structlog
from sqlalchemy import text

from app.core.errors import Gone
from app.db.session import Database

logger = structlog.get_logger(__name__)

LOGS = ("agent_run_events", "agent_run_steps", "agent_run_checkpoints", "agent_run_checkpoint_writes")
_BATCH = 5_000
_SHORTEST_MS = 24 * 3600 * 1000
_TRY_ALONE = text("SELECT pg_try_advisory_xact_lock(1869771365, 2)")
_ALONE = text("SELECT pg_advisory_xact_lock(1869771365, 2)")
_GIVE_UP = text(
    """
    INSERT INTO dropped_run_logs (month)
    SELECT DISTINCT month FROM orrery_logged_months() AS month
    WHERE month + interval '1 month' <= (now() - make_interval(days => :days)) AT TIME ZONE 'UTC'
        AND NOT EXISTS (
            SELECT FROM agent_runs
            WHERE id >= orrery_uuid7_floor(month::timestamp)
                AND id < orrery_uuid7_floor(month::timestamp + interval '1 month')
                AND (finished_at IS NULL OR finished_at > now() - make_interval(days => :days)))
    ON CONFLICT DO NOTHING
    """
)
_GIVEN_UP = text(
    """
    SELECT DISTINCT month FROM orrery_logged_months() AS month JOIN dropped_run_logs USING (month)
    ORDER BY month
    """
)
_DROP = text("SELECT orrery_drop_log(:log, :month, :most)")
_DROPPED = """
    SELECT FROM dropped_run_logs WHERE $1 >= orrery_uuid7_floor(month::timestamp)
        AND $1 < orrery_uuid7_floor(month::timestamp + interval '1 month')
"""


async def drop_old_logs(database: Database, *, days: int) -> list[date]:
    """Drops the logs of the months that ended more than `days` ago, where no run of them is open or ended
    since; which months those are, by their first days. Nothing where another process is at it."""
    async with database.system_work() as session:
        if not (await session.execute(_TRY_ALONE)).scalar_one():
            return []
        await session.execute(_GIVE_UP, {"days": days})
        months = list((await session.execute(_GIVEN_UP)).scalars())
    for month in months:
        for log in LOGS:
            await _drop(database, log, month)
        logger.info("run_logs_dropped", month=f"{month:%Y-%m}")
    return months


async def _drop(database: Database, log: str, month: date) -> None:
    """In short transactions of its own, one table after the other: writers wait for each at most a moment."""
    dropped = _BATCH
    while dropped == _BATCH:
        async with database.system_work() as session:
            await session.execute(_ALONE)
            wanted = {"log": log, "month": month, "most": _BATCH}
            dropped = (await session.execute(_DROP, wanted)).scalar_one()


async def is_log_kept(database: Database, run_id: UUID) -> bool:
    """Whether events, steps and checkpoints of a run are still there."""
    made_ms = run_id.int >> 80  # RFC 9562, version 7
    if made_ms > time.time() * 1000 - _SHORTEST_MS:
        return True
    return not await database.system_statement(_DROPPED, run_id)


async def demand_log(database: Database, run_id: UUID) -> None:
    """Raises `Gone` where the log of a run is not kept any more."""
    if not await is_log_kept(database, run_id):
        raise Gone(
            "Events, steps and checkpoints of this run were dropped, because it is too old "
            f"(ORRERY_RUN_LOG_RETENTION_DAYS). What came of it is kept: GET /api/v1/runs/{run_id}.",
            code="log_dropped",
        )
