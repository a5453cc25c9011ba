"""Leases: who may write a row of work, and until when."""

import asyncio
from collections import Counter
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from app.core.ids import new_id
from app.db.postgres.models.jobs import WorkItem, WorkState
from app.db.postgres.repositories.work import Claim
from app.db.session import Database, Tenant
from app.services.runs.claims import Claimer, queues_due
from app.services.runs.leases import (
    ITEMS,
    RUNS,
    Lease,
    Leases,
    release_local,
    release_owner,
)
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def queue() -> str:
    return f"q-{new_id().hex}"


async def add_items(database: Database, tenant: Tenant, queue: str, *, count: int = 1) -> list[UUID]:
    ids = [new_id() for _ in range(count)]
    async with database.unit_of_work(tenant) as session:
        session.add_all(
            WorkItem(
                org_id=tenant.org_id,
                id=item,
                project_id=tenant.project,
                queue=queue,
                kind="test",
                subject_id=new_id(),
            )
            for item in ids
        )
    return ids


async def claim(
    database: Database, queue: str, *, owner: str = "one", limit: int = 1, lease_s: float = 30
) -> list[Claim]:
    async with database.system_work() as session:
        claimer = Claimer(queue, owner, lease_s, {"test"})
        claims = [
            await claimer.waiting(session) or await claimer.silent(session, alone=False) for _ in range(limit)
        ]
        return [one for one in claims if one]


async def change(database: Database, tenant: Tenant, item: UUID, what: str) -> None:
    async with database.unit_of_work(tenant) as session:
        await session.execute(text(f"UPDATE work_items SET {what} WHERE id = :id"), {"id": item})


async def seconds_left(database: Database, tenant: Tenant, item: UUID) -> float:
    left = func.extract("epoch", WorkItem.lease_until - func.now())
    async with database.unit_of_work(tenant) as session:
        return float((await session.execute(select(left).where(WorkItem.id == item))).scalar_one())


class TestClaim:
    async def test_gives_each_item_to_one_of_many_claimers(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        ids = await add_items(database, tenant, queue, count=60)

        async def claim_all(owner: str) -> list[UUID]:
            taken: list[UUID] = []
            while claims := await claim(database, queue, owner=owner, limit=3):
                taken += [one.id for one in claims]
            return taken

        taken = await asyncio.gather(*(claim_all(f"worker-{n}") for n in range(4)))
        assert Counter(item for one in taken for item in one) == Counter(ids)

    async def test_takes_no_more_than_asked_for(self, database: Database, tenant: Tenant, queue: str) -> None:
        await add_items(database, tenant, queue, count=20)
        assert len(await claim(database, queue, limit=7)) == 7

    async def test_does_not_wait_for_an_item_that_another_transaction_holds(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        first, second = await add_items(database, tenant, queue, count=2)
        async with database.unit_of_work(tenant) as session:
            await session.execute(select(WorkItem).where(WorkItem.id == first).with_for_update())
            async with asyncio.timeout(5):
                assert [one.id for one in await claim(database, queue, limit=2)] == [second]

    async def test_leaves_items_of_other_queues(self, database: Database, tenant: Tenant, queue: str) -> None:
        await add_items(database, tenant, queue)
        assert await claim(database, queue + "-other") == []

    async def test_leaves_what_is_not_due(self, database: Database, tenant: Tenant, queue: str) -> None:
        (item,) = await add_items(database, tenant, queue)
        await change(database, tenant, item, "due_at = now() + interval '1 minute'")
        assert await claim(database, queue) == []

    async def test_leaves_what_is_leased(self, database: Database, tenant: Tenant, queue: str) -> None:
        await add_items(database, tenant, queue)
        await claim(database, queue, owner="one")
        assert await claim(database, queue, owner="two") == []

    async def test_takes_over_an_expired_lease_under_a_higher_fence(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        (item,) = await add_items(database, tenant, queue)
        (before,) = await claim(database, queue, owner="one")
        await change(database, tenant, item, "lease_until = now() - interval '1 second'")
        (after,) = await claim(database, queue, owner="two")
        assert (after.id, after.fence, after.deaths) == (item, before.fence + 1, 1)

    @pytest.mark.parametrize("state", [WorkState.SUCCEEDED, WorkState.FAILED, WorkState.CANCELLED])
    async def test_leaves_what_has_ended(
        self, database: Database, tenant: Tenant, queue: str, state: WorkState
    ) -> None:
        (item,) = await add_items(database, tenant, queue)
        await change(database, tenant, item, f"state = '{state.value}'")
        assert await claim(database, queue) == []


class TestHeartbeat:
    async def test_keeps_a_lease_alive_for_longer_than_it_lasts(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        (item,) = await add_items(database, tenant, queue)
        (held,) = await claim(database, queue, owner="one", lease_s=0.9)
        leases = Leases(database, ITEMS, "one", 0.9)
        async with leases.beating(), leases.holding(Lease(held.org_id, held.id, held.fence), _unexpected):
            await asyncio.sleep(1.8)
            assert await seconds_left(database, tenant, item) > 0

    async def test_ends_with_the_block(self, database: Database, tenant: Tenant, queue: str) -> None:
        (item,) = await add_items(database, tenant, queue)
        (held,) = await claim(database, queue, owner="one", lease_s=0.3)
        leases = Leases(database, ITEMS, "one", 0.3)
        async with leases.beating():
            async with leases.holding(Lease(held.org_id, held.id, held.fence), _unexpected):
                await asyncio.sleep(0.2)
            await asyncio.sleep(0.6)
            assert await seconds_left(database, tenant, item) < 0

    @pytest.mark.parametrize("loss", ["fence = fence + 1", "lease_owner = 'two'"])
    async def test_tells_that_a_lease_is_lost(
        self, database: Database, tenant: Tenant, queue: str, loss: str
    ) -> None:
        (item,) = await add_items(database, tenant, queue)
        (held,) = await claim(database, queue, owner="one")
        leases, lost = Leases(database, ITEMS, "one", 0.3), asyncio.Event()
        async with leases.beating(), leases.holding(Lease(held.org_id, held.id, held.fence), lost.set):
            await change(database, tenant, item, loss)
            async with asyncio.timeout(5):
                await lost.wait()

    async def test_of_a_later_claim_survives_the_end_of_an_earlier_one(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        """One process may claim an item again while its first, expired attempt is still leaving."""
        (item,) = await add_items(database, tenant, queue)
        (first,) = await claim(database, queue, owner="one", lease_s=0.9)
        await change(database, tenant, item, "lease_until = now() - interval '1 second'")
        (second,) = await claim(database, queue, owner="one", lease_s=0.9)
        leases = Leases(database, ITEMS, "one", 0.9)
        async with leases.beating(), leases.holding(Lease(second.org_id, item, second.fence), _unexpected):
            async with leases.holding(Lease(first.org_id, item, first.fence), lambda: None):
                pass
            await asyncio.sleep(1.5)
            assert await seconds_left(database, tenant, item) > 0


def _unexpected() -> None:
    raise AssertionError("the lease was ours")


class TestQueuesDue:
    async def test_names_queues_with_work_that_waits(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        await add_items(database, tenant, queue)
        assert queue in await _due(database)

    async def test_leaves_out_queues_whose_work_is_being_done(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        await add_items(database, tenant, queue)
        await claim(database, queue)
        assert queue not in await _due(database)

    async def test_names_queues_whose_worker_died(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        (item,) = await add_items(database, tenant, queue)
        await claim(database, queue)
        await change(database, tenant, item, "lease_until = now() - interval '1 second'")
        assert queue in await _due(database)


async def _due(database: Database) -> list[str]:
    async with database.system_work() as session:
        return await queues_due(session)


class TestRelease:
    async def test_of_an_owner_frees_its_leases_and_nobody_elses(
        self, database: Database, tenant: Tenant, queue: str
    ) -> None:
        first, _second = await add_items(database, tenant, queue, count=2)
        owner = f"local:{new_id().hex}"
        await claim(database, queue, owner=owner)
        await claim(database, queue, owner=owner + "-not")
        assert await release_owner(database, ITEMS, owner) == 1
        assert [one.id for one in await claim(database, queue, owner="next", limit=2)] == [first]

    async def test_of_this_machine_leaves_other_machines_alone(
        self, database: Database, bench: Bench
    ) -> None:
        mine = await bench.planted(owner="local:1:abc")
        elsewhere = await bench.planted(owner="localhost:1:abc")
        assert await release_local(database, RUNS) >= 1
        assert await _lease_over(database, bench.tenant, mine)
        assert not await _lease_over(database, bench.tenant, elsewhere)


async def _lease_over(database: Database, tenant: Tenant, lease: Lease) -> bool:
    statement = select(RUNS.c.lease_until <= func.now()).where(RUNS.c.id == lease.id)
    async with database.unit_of_work(tenant) as session:
        return bool((await session.execute(statement)).scalar_one())
