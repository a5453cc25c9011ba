"""Leases: who may write a row of work, until when, by the database's clock.

One mechanism for runs and work items: a claim raises the row's `fence` and names an owner; a heartbeat
prolongs; every write carries the fence; whoever comes too late writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import structlog
from sqlalchemy import ColumnElement, Table, func, text, update

from app.core.outages import Outage
from app.core.tasks import end
from app.db.postgres.models import AgentRun, WorkItem
from app.db.postgres.models.jobs import WorkState
from app.db.session import Database

logger = structlog.get_logger(__name__)

RUNS: Table = AgentRun.__table__  # type: ignore[assignment]
ITEMS: Table = WorkItem.__table__  # type: ignore[assignment]
LOCAL = "local"  # how owners are called that use the embedded database
LEASE = text("make_interval(secs => :lease)")
_BEATS = 3
_TRIES = 30
"""How often a lease is prolonged while it lasts, and how often that is tried where it fails at once."""
_LEAST_PATIENCE_S = 1.0

_MINE = """(org_id, id, fence) IN (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[]))
    AND lease_owner = $4"""
_STILL_OURS = f"SELECT org_id, id, fence FROM {{}} WHERE {_MINE}"  # noqa: S608  (ours)
# A row that is locked is being written by its holder, and is prolonged the next time; waiting for it would
# let all the others run out.
_PROLONG = f"""
    WITH free AS (SELECT org_id, id FROM {{0}} WHERE {_MINE} FOR NO KEY UPDATE SKIP LOCKED)
    UPDATE {{0}} t SET lease_until = now() + make_interval(secs => $5)
    FROM free WHERE t.org_id = free.org_id AND t.id = free.id
"""  # noqa: S608  (ours)

_PUT_BACK_RUNS = """
    UPDATE agent_runs SET status = 'queued', lease_owner = NULL, lease_until = NULL
    WHERE lease_owner = $1 AND finished_at IS NULL RETURNING org_id, id
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """A row held by this process. Writes are valid only while the row still has this `fence`."""

    org_id: UUID
    id: UUID
    fence: int


@dataclass(slots=True)
class Leases:
    """The leases that one process (`owner`) holds on one table, kept alive by one heartbeat."""

    database: Database
    table: Table
    owner: str
    lease_s: float
    held: dict[Lease, Callable[[], object]] = field(default_factory=dict)

    @asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Prolongs what is held, thrice per lease, for the length of the block.

        On a connection of its own, so that no other statement holds it up; one that does not answer is given
        up while there is time for another.
        """
        with self.database.apart() as database:
            task = asyncio.create_task(self._beat(database), name=f"heartbeat-{self.table.name}")
            try:
                yield
            finally:
                await end(task)

    @asynccontextmanager
    async def holding(self, lease: Lease, lost: Callable[[], object]) -> AsyncIterator[None]:
        """Keeps `lease` alive for the length of the block; calls `lost` once it is somebody else's."""
        self.held[lease] = lost
        try:
            yield
        finally:
            self.held.pop(lease, None)

    async def _beat(self, database: Database) -> None:
        outage = Outage(logger.bind(table=self.table.name), "heartbeat_failed")
        while True:
            await asyncio.sleep(self.lease_s / (_TRIES if outage.failures else _BEATS))
            if not self.held:
                continue
            try:
                async with asyncio.timeout(max(self.lease_s / (2 * _BEATS), _LEAST_PATIENCE_S)):
                    await self._prolong(database)
                outage.over()
            except Exception as error:
                outage.failed(error)

    async def _prolong(self, database: Database) -> None:
        held = dict(self.held)
        mine = [list(column) for column in zip(*((h.org_id, h.id, h.fence) for h in held), strict=True)]
        await database.system_statement(_PROLONG.format(self.table.name), *mine, self.owner, self.lease_s)
        rows = await database.system_statement(_STILL_OURS.format(self.table.name), *mine, self.owner)
        alive = {Lease(*row) for row in rows}
        for lease in held.keys() - alive:
            if lease in self.held:
                logger.warning("lease_lost", table=self.table.name, id=str(lease.id))
                held[lease]()


async def release_owner(database: Database, table: Table, owner: str) -> int:
    """Ends every lease of a process that is known to be dead, so that nobody waits for it to run out."""
    return await _release(database, table, table.c.lease_owner == owner)


async def put_back(database: Database, owner: str) -> int:
    """Gives back the items of a worker that was told to stop: no attempt of theirs has failed."""
    statement = (
        update(ITEMS)
        .where(ITEMS.c.lease_owner == owner, ITEMS.c.state == WorkState.RUNNING)
        .values(state=WorkState.QUEUED, attempts=ITEMS.c.attempts - 1, alone=False)
        .values(lease_owner=None, lease_until=None)
        .returning(ITEMS.c.id)
    )
    async with database.system_work() as session:
        return len((await session.execute(statement)).all())


async def put_back_runs(database: Database, owner: str) -> int:
    """Gives back the runs of a process that executes nothing any more: it has not died over them."""
    return len(await database.system_statement(_PUT_BACK_RUNS, owner))


async def release_local(database: Database, table: Table) -> int:
    """Ends the leases of all processes that used the embedded database before: they died with it."""
    return await _release(database, table, table.c.lease_owner.startswith(f"{LOCAL}:"))


async def _release(database: Database, table: Table, whose: ColumnElement[bool]) -> int:
    statement = (
        update(table)
        .where(whose, table.c.finished_at.is_(None), table.c.lease_until.is_not(None))
        .values(lease_until=func.least(table.c.lease_until, func.now()))
        .returning(table.c.id)
    )
    async with database.system_work() as session:
        return len((await session.execute(statement)).all())
