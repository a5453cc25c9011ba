"""Commands to runs: obeyed by the process that holds the run, swept when it has ended."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.session import Database

_TAKE = """
    UPDATE agent_run_commands c SET consumed_at = COALESCE(c.consumed_at, now()) FROM agent_runs r
    WHERE r.org_id = c.org_id AND r.id = c.run_id AND r.lease_owner = $1 AND r.finished_at IS NULL
        AND c.kind = 'cancel' AND c.run_id = ANY($2::uuid[])
    RETURNING c.run_id
"""
_SWEEP = text(
    """
    DELETE FROM agent_run_commands c USING agent_runs r
    WHERE r.org_id = c.org_id AND r.id = c.run_id AND r.finished_at IS NOT NULL
    """
)


async def cancels_of(database: Database, *, owner: str, executing: list[UUID]) -> list[UUID]:
    """Which of the runs `executing` here somebody wants to end."""
    return [row[0] for row in await database.system_statement(_TAKE, owner, executing)]


async def sweep_commands(session: AsyncSession) -> None:
    """Deletes what was wanted of runs that have ended; takes a session of `system_work`."""
    await session.execute(_SWEEP)
