"""A clock that was set back: rows that were written in what is now the future."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

from sqlalchemy import text

from app.services.runs.claims import Claimer, queues_due
from app.services.runs.clock import mend_times
from app.services.runs.leases import ITEMS
from tests.factories import Factory, Member
from tests.fixtures import Running

QUEUE = "clock-tests"
LEASE_S = 5.0
_SHIFT = text(
    """
    UPDATE work_items SET created_at = created_at + interval '1 hour', due_at = due_at + interval '1 hour',
        updated_at = now() + interval '1 hour', lease_until = lease_until + interval '1 hour'
    WHERE id = :id RETURNING due_at - now()
    """
)


async def queued(server: Running, member: Member, *, delay_s: float = 0) -> UUID:
    """A work item that was stored an hour ahead of now."""
    values = {
        "org_id": member.tenant.org_id,
        "project_id": member.tenant.project,
        "queue": QUEUE,
        "kind": "clock",
        "subject_id": member.tenant.org_id,
    }
    async with server.resources.database.unit_of_work(member.tenant) as session:
        statement = ITEMS.insert().values(**values).returning(ITEMS.c.id)
        item: UUID = (await session.execute(statement)).scalar_one()
        delay = text("UPDATE work_items SET due_at = now() + make_interval(secs => :s) WHERE id = :id")
        await session.execute(delay, {"s": delay_s, "id": item})
        assert (await session.execute(_SHIFT, {"id": item})).scalar_one() > timedelta(minutes=50)
    return item


async def due_in(server: Running, member: Member, item: UUID) -> timedelta:
    async with server.resources.database.unit_of_work(member.tenant) as session:
        asked = text("SELECT due_at - now() FROM work_items WHERE id = :id")
        found: timedelta = (await session.execute(asked, {"id": item})).scalar_one()
    return found


class TestItems:
    async def test_of_the_future_are_due_now(self, server: Running, member: Member) -> None:
        item = await queued(server, member)
        await mend_times(server.resources.database, lease_s=LEASE_S)  # unless the sweeper was faster
        assert await due_in(server, member, item) <= timedelta(0)
        async with server.resources.database.system_work() as session:
            assert QUEUE in await queues_due(session)

    async def test_keep_the_delay_that_was_planned(self, server: Running, member: Member) -> None:
        item = await queued(server, member, delay_s=120)
        await mend_times(server.resources.database, lease_s=LEASE_S)
        assert timedelta(seconds=60) < await due_in(server, member, item) <= timedelta(seconds=121)

    async def test_held_by_the_dead_are_free_after_one_lease(self, server: Running, member: Member) -> None:
        item = await queued(server, member)
        database = server.resources.database
        await mend_times(database, lease_s=LEASE_S)
        claimer = Claimer(QUEUE, "dead", 3600, {"clock"})
        claimed: list[UUID] = []
        async with asyncio.timeout(10):
            while item not in claimed:  # the server's own mender may hold the row for a moment
                async with database.system_work() as session:
                    while claim := await claimer.waiting(session):
                        claimed.append(claim.id)
        await mend_times(database, lease_s=LEASE_S)
        async with database.unit_of_work(member.tenant) as session:
            asked = text("SELECT lease_until - now() FROM work_items WHERE id = :id")
            left: timedelta = (await session.execute(asked, {"id": item})).scalar_one()
        assert left <= timedelta(seconds=LEASE_S)

    async def test_of_the_present_are_left_alone(
        self, server: Running, member: Member, make: Factory
    ) -> None:
        database = server.resources.database
        await mend_times(database, lease_s=LEASE_S)
        assert await mend_times(database, lease_s=LEASE_S) == 0
