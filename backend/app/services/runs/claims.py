"""Which work is taken next.

Waiting work is claimed in fair shares: the organization of which least is being worked on comes first, in it
the job of which least is; lots decide between equals, and within a job the oldest item is taken. So a flood
delays others, but never starves them. What fell silent with its worker is claimed by itself: should it be
what killed the worker, nothing else dies with it again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ARRAY, Executable, Float, Text, TextClause, bindparam, case, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.postgres.models.jobs import WorkState
from app.db.postgres.repositories.work import Claim
from app.services.runs.leases import ITEMS, LEASE

# A share is a job of an organization, or what it has outside jobs. Shares are found by a loose index scan,
# so that a claim costs one look per share, however many items wait.
_WAITING = text(
    """
    WITH RECURSIVE shares AS (
        (SELECT org_id, COALESCE(job_id, org_id) AS id FROM work_items
         WHERE queue = :in_queue AND state = 'queued' ORDER BY 1, 2 LIMIT 1)
        UNION ALL
        SELECT following.org_id, following.id FROM shares s CROSS JOIN LATERAL (
            SELECT org_id, COALESCE(job_id, org_id) AS id FROM work_items
            WHERE queue = :in_queue AND state = 'queued'
                AND (org_id, COALESCE(job_id, org_id)) > (s.org_id, s.id)
            ORDER BY 1, 2 LIMIT 1
        ) AS following
    ), orgs AS MATERIALIZED (
        SELECT org_id, random() AS lot FROM (SELECT DISTINCT org_id FROM shares) AS distinct_orgs
    ), held AS MATERIALIZED (
        SELECT org_id, COALESCE(job_id, org_id) AS id, count(*) AS items FROM work_items
        WHERE queue = :in_queue AND state = 'running' GROUP BY 1, 2
    ), ready AS MATERIALIZED (
        SELECT due.org_id, due.id, row_number() OVER (
            ORDER BY (SELECT COALESCE(sum(items), 0) FROM held h WHERE h.org_id = s.org_id), orgs.lot,
                COALESCE(held.items, 0), s.lot, due.due_at, due.id
        ) AS place
        FROM (SELECT org_id, id, random() AS lot FROM shares) AS s
        JOIN orgs USING (org_id)
        LEFT JOIN held USING (org_id, id)
        CROSS JOIN LATERAL (
            SELECT org_id, id, due_at FROM work_items
            WHERE queue = :in_queue AND state = 'queued' AND org_id = s.org_id
                AND COALESCE(job_id, org_id) = s.id AND due_at <= now()
                AND kind = ANY(:kinds) AND size_bytes <= :most_bytes
            ORDER BY due_at, id LIMIT :depth
        ) AS due
    )
    SELECT w.org_id, w.id FROM ready r JOIN work_items w USING (org_id, id)
    WHERE w.state = 'queued' ORDER BY r.place LIMIT 1 FOR UPDATE OF w SKIP LOCKED
    """
)
_SILENT = text(
    """
    SELECT org_id, id FROM work_items
    WHERE queue = :in_queue AND state = 'running' AND kind = ANY(:kinds)
        AND lease_until < now() - make_interval(secs => :for_s)
    ORDER BY size_bytes, lease_until, id LIMIT 1 FOR UPDATE SKIP LOCKED
    """
)
_DEPTH = 32  # as many claims at the same moment do not get into each other's way
ANY_SIZE = 2**62


def _taking(chosen: TextClause, **changes: Any) -> Executable:
    """Takes what `chosen` finds. Such statements are made once: building one costs more than sending it."""
    i = ITEMS.c
    bound = chosen.bindparams(bindparam("kinds", type_=ARRAY(Text)))
    found = bound.columns(i.org_id, i.id).cte("found")
    return (
        update(ITEMS)
        .where(i.org_id == found.c.org_id, i.id == found.c.id)
        .values(
            lease_owner=bindparam("by_owner"),
            lease_until=func.now() + LEASE,
            fence=i.fence + 1,
            **changes,
        )
        .returning(
            *(i.org_id, i.id, i.project_id, i.kind, i.subject_id, i.attempts, i.fence, i.deaths, i.alone),
            *(i.size_bytes, i.job_id, i.payload),
            func.extract("epoch", func.now() - i.queued_at).cast(Float),
        )
    )


_TAKE_WAITING = _taking(
    _WAITING,
    state=WorkState.RUNNING,
    attempts=ITEMS.c.attempts + 1,
    started_at=func.coalesce(ITEMS.c.started_at, func.now()),
)
_TAKE_SILENT = _taking(
    _SILENT,
    attempts=ITEMS.c.attempts + case((ITEMS.c.alone, 1), else_=0),
    deaths=ITEMS.c.deaths + 1,
    alone=bindparam("is_alone"),
)


@dataclass(frozen=True, slots=True)
class Claimer:
    """Claims items of one queue for `owner`, only of `kinds` that it knows: newer ones wait for their own.

    `session` is one of `system_work`. SKIP LOCKED lets any number of workers claim side by side.
    """

    queue: str
    owner: str
    lease_s: float
    kinds: Collection[str]

    async def waiting(self, session: AsyncSession, *, most_bytes: int = ANY_SIZE) -> Claim | None:
        """The next due item that is no larger than `most_bytes`."""
        return await self._take(session, _TAKE_WAITING, most_bytes=most_bytes, depth=_DEPTH)

    async def silent(self, session: AsyncSession, *, alone: bool, for_s: float = 0) -> Claim | None:
        """The smallest item whose holder has been silent for `for_s` beyond its lease.

        `alone` promises to work on nothing beside it: only a death then is charged, because in company it may
        have been another's.
        """
        return await self._take(session, _TAKE_SILENT, for_s=for_s, is_alone=alone)

    async def _take(self, session: AsyncSession, statement: Executable, **values: object) -> Claim | None:
        mine = {
            "in_queue": self.queue,
            "kinds": list(self.kinds),
            "by_owner": self.owner,
            "lease": self.lease_s,
        }
        row = (await session.execute(statement, mine | values)).one_or_none()
        return replace(Claim(*row), lease_s=self.lease_s) if row else None


async def queues_due(session: AsyncSession) -> list[str]:
    """Queues with work that waits: for the sweeper, which wakes workers that missed a message."""
    i = ITEMS.c
    waiting = select(i.queue).where(i.state == WorkState.QUEUED, i.due_at <= func.now())
    silent = select(i.queue).where(i.state == WorkState.RUNNING, i.lease_until < func.now())
    return list((await session.execute(waiting.union(silent))).scalars())
