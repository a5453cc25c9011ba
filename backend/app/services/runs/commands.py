"""Commands to runs that this process holds."""

from __future__ import annotations

from uuid import UUID

from app.db.session import Database

_TAKE = """
    UPDATE agent_run_commands c SET consumed_at = COALESCE(c.consumed_at, now()) FROM agent_runs r
    WHERE r.org_id = c.org_id AND r.id = c.run_id AND r.lease_owner = $1 AND r.finished_at IS NULL
        AND c.kind = 'cancel' AND c.run_id = ANY($2::uuid[])
    RETURNING c.run_id
"""


async def cancels_of(database: Database, *, owner: str, executing: list[UUID]) -> list[UUID]:
    """Which of the runs `executing` here somebody wants to end."""
    return [row[0] for row in await database.system_statement(_TAKE, owner, executing)]
