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
from sqlalchemy import ColumnElement, Table, func, select, text, tuple_, update

from app.core.tasks import end
from app.db.postgres.models import AgentRun, WorkItem
from app.db.postgres.models.jobs import WorkState
from app.db.session import Database

logger = structlog.get_logger(__name__)

RUNS: Table = AgentRun.__table__  # type: ignore[assignment]
ITEMS: Table = WorkItem.__table__  # type: ignore[assignment]
LOCAL = "local"  # how owners are called that use the embedded database
LEASE = text("make_interval(secs => :lease)")


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
        """Prolongs what is held, thrice per lease, for the length of the block."""
        task = asyncio.create_task(self._beat(), name=f"heartbeat-{self.table.name}")
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

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self.lease_s / 3)
            if not self.held:
                continue
            try:
                await self._prolong()
            except Exception as error:
                logger.warning("heartbeat_failed", table=self.table.name, error=repr(error))

    async def _prolong(self) -> None:
        held = dict(self.held)
        t = self.table
        mine = [(lease.org_id, lease.id, lease.fence) for lease in held]
        still_ours = select(t.c.org_id, t.c.id, t.c.fence).where(
            tuple_(t.c.org_id, t.c.id, t.c.fence).in_(mine), t.c.lease_owner == self.owner
        )
        # A row that is locked is being written under its fence, which prolongs it; waiting for it would
        # let all the others run out.
        free = still_ours.with_for_update(skip_locked=True, key_share=True).cte("free")
        prolong = (
            update(t)
            .where(t.c.org_id == free.c.org_id, t.c.id == free.c.id)
            .values(lease_until=func.now() + LEASE.bindparams(lease=self.lease_s))
        )
        async with self.database.system_work() as session:
            await session.execute(prolong)
            alive = {Lease(*row) for row in (await session.execute(still_ours))}
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
