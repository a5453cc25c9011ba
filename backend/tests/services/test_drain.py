"""What a drain takes beside what it has in work: poison stays alone, large work leaves room for small."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.postgres.models.jobs import WorkState
from app.db.postgres.repositories.work import Claim
from tests.services.test_job_service import Queue
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")
DEAD = text(
    "UPDATE work_items SET state = 'running', lease_owner = 'local:dead', "
    "lease_until = now() - interval '9 seconds' WHERE id = :id"
)


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue(world)


class Worker:
    """Works a queue in which items of the kind `poison` end the worker amid all that it has in hand."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.deaths = 0
        self.running: asyncio.Task[int] | None = None

    async def die(self, claim: Claim) -> None:
        await asyncio.sleep(0.02)
        assert self.running
        self.running.cancel()
        await asyncio.sleep(60)

    async def good(self, claim: Claim) -> None:
        await asyncio.sleep(0.05)
        await self.queue.done(claim)

    async def live_until_all_is_done(self) -> None:
        """Each death is followed by a new worker, to which the dead one's leases are free at once."""
        while True:
            drain = self.queue.drain({"poison": self.die, "good": self.good})
            self.running = asyncio.create_task(drain.run(self.queue.name))
            await asyncio.wait([self.running])
            if not self.running.cancelled():
                return
            self.deaths += 1
            await self.queue.world.hurry()


async def states(queue: Queue, items: list[UUID]) -> list[WorkState]:
    return [(await queue.item(item)).state for item in items]


class Gate:
    """A handler whose items stay in work until it is opened."""

    def __init__(self, queue: Queue) -> None:
        self.queue = queue
        self.opened = asyncio.Event()

    async def __call__(self, claim: Claim) -> None:
        await self.opened.wait()
        await self.queue.done(claim)


async def until_done(queue: Queue, *items: UUID) -> None:
    async with asyncio.timeout(10):
        while set(await states(queue, list(items))) != {WorkState.SUCCEEDED}:
            await asyncio.sleep(0.05)


class TestPoison:
    @pytest.mark.parametrize("poisoned", [1, 5])
    async def test_fails_by_itself_however_much_there_is(self, queue: Queue, poisoned: int) -> None:
        good, poison = [], []
        for number in range(12):
            good.append(await queue.add("good"))
            if number < poisoned:
                poison.append(await queue.add("poison"))
        async with asyncio.timeout(60):
            await Worker(queue).live_until_all_is_done()
        assert await states(queue, poison) == [WorkState.FAILED] * poisoned
        assert await states(queue, good) == [WorkState.SUCCEEDED] * 12
        assert sorted(queue.failures) == sorted((item, "worker_died") for item in poison)

    async def test_costs_its_neighbours_no_attempt(self, queue: Queue) -> None:
        await queue.add("poison")
        good = [await queue.add("good") for _ in range(3)]
        await Worker(queue).live_until_all_is_done()
        assert [(await queue.item(item)).attempts for item in good] == [1, 1, 1]

    async def test_is_told_with_how_often_it_killed(self, queue: Queue) -> None:
        item = await queue.add("poison")
        worker = Worker(queue)
        await worker.live_until_all_is_done()
        assert worker.deaths == 4
        assert (await queue.item(item)).error == {
            "code": "worker_died",
            "message": "The worker died 4 times while working on this.",
            "retriable": True,
        }


class TestIsolation:
    async def test_lets_nothing_run_beside(self, queue: Queue) -> None:
        beside: list[str] = []

        async def alone(claim: Claim) -> None:
            for _ in range(3):
                await asyncio.sleep(0.5)
                beside.extend(await states(queue, others))
            await queue.done(claim)

        await self.left_by_a_dead_worker(queue, "alone")
        others = [await queue.add("done") for _ in range(3)]
        assert await queue.drain({"alone": alone}).run(queue.name) == 4
        assert set(beside) == {WorkState.QUEUED}
        assert await states(queue, others) == [WorkState.SUCCEEDED] * 3

    async def test_ends_after_a_while_so_that_a_long_item_delays_nobody_for_ever(self, queue: Queue) -> None:
        long = Gate(queue)
        item = await self.left_by_a_dead_worker(queue, "long")
        other = await queue.add("done")
        draining = asyncio.create_task(queue.drain({"long": long}, isolation_s=0.5).run(queue.name))
        await until_done(queue, other)
        assert not (await queue.item(item)).alone
        long.opened.set()
        assert await draining == 2

    async def test_does_not_keep_a_silent_item_from_a_worker_that_is_never_idle(self, queue: Queue) -> None:
        long = Gate(queue)
        await queue.add("long")
        drain = queue.drain({"long": long, "left": queue.done}, isolation_s=0)
        draining = asyncio.create_task(drain.run(queue.name))
        await asyncio.sleep(0.2)
        await until_done(queue, await self.left_by_a_dead_worker(queue, "left"))
        long.opened.set()
        await draining

    async def left_by_a_dead_worker(self, queue: Queue, kind: str) -> UUID:
        item = await queue.add(kind)
        async with queue.world.resources.database.system_work() as session:
            await session.execute(DEAD, {"id": item})
        return item


class TestLargeItems:
    @pytest.mark.parametrize("concurrency", [1, 2, 4])
    async def test_leave_a_place_for_small_ones(self, queue: Queue, concurrency: int) -> None:
        long = Gate(queue)
        large = [await queue.add("long", size_bytes=1000) for _ in range(concurrency + 2)]
        small = [await queue.add("done", size_bytes=10) for _ in range(5)]
        drain = queue.drain({"long": long}, concurrency=concurrency, large_bytes=100)
        draining = asyncio.create_task(drain.run(queue.name))
        await until_done(queue, *small)
        assert (await states(queue, large)).count(WorkState.RUNNING) == max(1, concurrency - 1)
        long.opened.set()
        assert await draining == len(large) + len(small)
