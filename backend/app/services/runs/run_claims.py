"""Which runs a process takes up: those that wait, those whose time has come, and those whose process fell
silent.

The organization of which least is executing comes first; among its runs, the oldest.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.db.base import Json
from app.db.session import Database, Tenant
from app.services.runs.leases import Lease

_AT_ONCE = 100
_DEPTH = 32  # as many claims at the same moment do not get into each other's way
# Organizations are found by a loose index scan, so that a claim costs one look per organization and run that
# it may take, however many wait.
_WAITING = """
    WITH RECURSIVE orgs AS (
        (SELECT org_id FROM agent_runs
         WHERE {queued} ORDER BY org_id LIMIT 1)
        UNION ALL
        SELECT following.org_id FROM orgs o CROSS JOIN LATERAL (
            SELECT org_id FROM agent_runs
            WHERE {queued} AND org_id > o.org_id ORDER BY org_id LIMIT 1
        ) AS following
    ), candidates AS (
        SELECT due.* FROM orgs o CROSS JOIN LATERAL (
            SELECT org_id, id, created_at FROM agent_runs
            WHERE {queued} AND org_id = o.org_id
            ORDER BY created_at, id LIMIT $2 + {depth}
        ) AS due
        UNION ALL
        (SELECT org_id, id, created_at FROM agent_runs
         WHERE finished_at IS NULL AND lease_until < now() AND NOT id = ANY($4::uuid[])
         ORDER BY lease_until LIMIT $2 + {depth})
        UNION ALL
        (SELECT org_id, id, created_at FROM agent_runs
         WHERE finished_at IS NULL AND due_at <= now() ORDER BY due_at LIMIT $2 + {depth})
    ), waiting AS (
        SELECT org_id, id, created_at,
            row_number() OVER (PARTITION BY org_id ORDER BY created_at, id) AS place
        FROM candidates
    ), busy AS (
        SELECT org_id, count(*) AS runs FROM agent_runs
        WHERE finished_at IS NULL AND lease_until >= now() GROUP BY org_id
    ), chosen AS (
        SELECT r.org_id, r.id, r.lease_until FROM waiting w
        JOIN agent_runs r USING (org_id, id)
        LEFT JOIN busy b USING (org_id)
        WHERE r.finished_at IS NULL AND COALESCE(r.lease_until, r.due_at, '-infinity') <= now()
        ORDER BY COALESCE(b.runs, 0) + w.place, w.created_at LIMIT $2 FOR UPDATE OF r SKIP LOCKED
    )
""".replace("{depth}", str(_DEPTH)).replace(
    "{queued}", "finished_at IS NULL AND lease_until IS NULL AND due_at IS NULL"
)
_CANCELLED = """
    WITH chosen AS (
        SELECT r.org_id, r.id, r.lease_until FROM agent_run_commands c
        JOIN agent_runs r ON r.org_id = c.org_id AND r.id = c.run_id
        WHERE r.finished_at IS NULL AND (r.lease_until IS NULL OR r.lease_until < now())
            AND c.kind = 'cancel' AND c.consumed_at IS NULL AND NOT r.id = ANY($4::uuid[])
        LIMIT $2 FOR UPDATE OF r SKIP LOCKED
    )
"""
_TAKE = """
    UPDATE agent_runs r SET status = 'running', fence = r.fence + 1, lease_owner = $1,
        lease_until = now() + make_interval(secs => $3), due_at = NULL,
        started_at = COALESCE(r.started_at, now()),
        recoveries = r.recoveries + CASE WHEN c.lease_until IS NULL THEN 0 ELSE 1 END
    FROM chosen c WHERE r.org_id = c.org_id AND r.id = c.id
    RETURNING r.org_id, r.project_id, r.id, r.version_id, r.fence, r.last_seq, r.recoveries, r.input::text,
        r.answers, r.effects_of, r.made_by, r.parent_run_id,
        EXISTS (SELECT FROM agent_run_commands o WHERE o.org_id = r.org_id AND o.run_id = r.id
            AND o.kind = 'cancel')
"""
_CLAIM = _WAITING + _TAKE
_CLAIM_CANCELLED = _CANCELLED + _TAKE


@dataclass(frozen=True, slots=True)
class ClaimedRun:
    """A run that is leased to us from now. `recoveries`: how many died since its last step."""

    tenant: Tenant
    id: UUID
    version_id: UUID
    fence: int
    last_seq: int
    recoveries: int
    input: Json
    answers: int
    effects_of: UUID | None
    made_by: str | None
    parent_run_id: UUID | None
    cancelled: bool

    @property
    def lease(self) -> Lease:
        return Lease(self.tenant.org_id, self.id, self.fence)


async def claim_runs(
    database: Database, *, owner: str, limit: int, lease_s: float, executing: Collection[UUID]
) -> list[ClaimedRun]:
    """At most `limit` runs, none of those that `owner` is `executing`; any number may claim side by side."""
    rows = await database.system_statement(_CLAIM, owner, limit, lease_s, list(executing))
    return [_claimed(row) for row in rows]


async def claim_cancelled(
    database: Database, *, owner: str, lease_s: float, executing: Collection[UUID]
) -> list[ClaimedRun]:
    """Some of the runs that nobody executes and somebody wants to end."""
    rows = await database.system_statement(_CLAIM_CANCELLED, owner, _AT_ONCE, lease_s, list(executing))
    return [_claimed(row) for row in rows]


def _claimed(row: Any) -> ClaimedRun:
    org_id, project_id, run_id, version_id, fence, last_seq, recoveries, given, *rest = row
    return ClaimedRun(
        Tenant(org_id, project_id),
        run_id,
        version_id,
        fence,
        last_seq,
        recoveries,
        json.loads(given),
        *rest,
    )
