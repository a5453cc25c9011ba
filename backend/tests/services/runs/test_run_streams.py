"""Following a run's log: the same rows for everybody, from wherever they begin."""

import asyncio
from collections.abc import Iterator
from time import monotonic
from uuid import UUID

import pytest
from ag_ui.core import CustomEvent
from sqlalchemy import event

from app.db.session import Database, Tenant
from app.services.runs.event_log import EventLog
from app.services.runs.leases import Lease
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.run_log import RunLog
from app.services.runs.streams import POLL_S, RunStreams
from app.services.runs.watch import Watch
from tests.services.runs.conftest import Bench, finish

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def streams(database: Database, log: EventLog) -> RunStreams:
    """Streams of the process that writes."""
    return RunStreams(database, log.watch)


@pytest.fixture
def elsewhere(database: Database) -> RunStreams:
    """Streams of another process, which hears of nothing."""
    return RunStreams(database, Watch())


@pytest.fixture
def connections_taken(database: Database) -> Iterator[list[object]]:
    """One entry per connection that somebody takes from the pool."""
    taken: list[object] = []
    pool = database.engine.sync_engine.pool

    def note(connection: object, *_: object) -> None:
        taken.append(connection)

    event.listen(pool, "checkout", note)
    yield taken
    event.remove(pool, "checkout", note)


async def say(run: RunLog, *values: int) -> None:
    for value in values:
        await run.emit(CustomEvent(name="n", value=value))
    await run.log.flush()


async def read(streams: RunStreams, tenant: Tenant, lease: Lease, *, after: int = 0) -> list[LoggedEvent]:
    return [event async for event in streams.follow(tenant, lease.id, after=after)]


class TestFollow:
    async def test_from_every_event_continues_with_exactly_the_next(
        self, bench: Bench, log: EventLog, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        run = RunLog(log, lease)
        await say(run, *range(9))
        await finish(run)
        whole = await read(streams, bench.tenant, lease)
        assert [event.seq for event in whole] == list(range(1, 11))
        for after in range(12):
            assert await read(streams, bench.tenant, lease, after=after) == whole[after:]

    async def test_while_the_run_goes_on_gives_the_rows_that_are_stored(
        self, bench: Bench, log: EventLog, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        run = RunLog(log, lease)
        reading = [asyncio.create_task(read(streams, bench.tenant, lease, after=n)) for n in range(4)]
        async with log.writer():
            for value in range(60):
                await run.emit(CustomEvent(name="n", value=value))
                await asyncio.sleep(0.002)
            await finish(run)
        stored = await bench.events(lease.id)
        async with asyncio.timeout(10):
            assert await asyncio.gather(*reading) == [stored[n:] for n in range(4)]

    async def test_sees_an_event_of_this_process_at_once(
        self, bench: Bench, log: EventLog, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        events = streams.follow(bench.tenant, lease.id)
        upcoming = asyncio.ensure_future(anext(events))
        await asyncio.sleep(0.2)
        began = monotonic()
        await say(RunLog(log, lease), 1)
        assert (await upcoming).seq == 1
        assert monotonic() - began < POLL_S / 2

    async def test_sees_an_event_of_another_process_within_the_poll(
        self, bench: Bench, log: EventLog, elsewhere: RunStreams
    ) -> None:
        lease = await bench.planted()
        upcoming = asyncio.ensure_future(anext(elsewhere.follow(bench.tenant, lease.id)))
        await asyncio.sleep(0.2)
        began = monotonic()
        await say(RunLog(log, lease), 1)
        assert (await upcoming).seq == 1
        assert monotonic() - began < POLL_S + 1

    async def test_ends_for_a_run_that_another_process_ended(
        self, bench: Bench, log: EventLog, elsewhere: RunStreams
    ) -> None:
        lease = await bench.planted()
        reading = asyncio.create_task(read(elsewhere, bench.tenant, lease))
        await finish(RunLog(log, lease))
        async with asyncio.timeout(5):
            assert [event.type for event in await reading] == ["RUN_FINISHED"]

    async def test_asks_the_database_for_nothing_where_this_process_writes_the_run_and_all_was_seen(
        self, bench: Bench, log: EventLog, streams: RunStreams, connections_taken: list[object]
    ) -> None:
        lease = await bench.planted()
        run = log.open(lease)
        await say(run, 1)
        connections_taken.clear()
        upcoming = asyncio.ensure_future(anext(streams.follow(bench.tenant, lease.id, after=1)))
        await asyncio.sleep(0.1)
        assert connections_taken == []
        await say(run, 2)
        assert (await upcoming).seq == 2

    async def test_ends_for_whoever_has_seen_the_end_of_a_run_that_is_about_to_be_forgotten(
        self, bench: Bench, log: EventLog, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        run = log.open(lease)
        await finish(run)
        async with asyncio.timeout(5):
            assert await read(streams, bench.tenant, lease, after=1) == []

    async def test_gives_long_logs_in_pages(self, bench: Bench, log: EventLog, streams: RunStreams) -> None:
        lease = await bench.planted()
        run = RunLog(log, lease)
        await say(run, *range(1200))
        await finish(run)
        assert [event.seq for event in await read(streams, bench.tenant, lease)] == list(range(1, 1202))

    async def test_shows_nothing_of_another_organization(
        self, bench: Bench, log: EventLog, streams: RunStreams, make_other: Tenant
    ) -> None:
        lease = await bench.planted()
        run = RunLog(log, lease)
        await say(run, 1)
        await finish(run)
        assert await streams.page(make_other, lease.id, after=0) == []

    async def test_holds_no_connection_while_it_waits(
        self, bench: Bench, database: Database, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        upcoming = asyncio.ensure_future(anext(streams.follow(bench.tenant, lease.id)))
        await asyncio.sleep(0.3)
        assert database.engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        upcoming.cancel()

    async def test_forgets_a_reader_who_left(self, bench: Bench, log: EventLog, streams: RunStreams) -> None:
        lease = await bench.planted()
        upcoming = asyncio.ensure_future(anext(streams.follow(bench.tenant, lease.id)))
        await asyncio.sleep(0.1)
        assert lease.id in log.watch.waiting
        upcoming.cancel()
        await asyncio.gather(upcoming, return_exceptions=True)
        assert lease.id not in log.watch.waiting

    async def test_closed_between_two_events_forgets_its_reader(
        self, bench: Bench, log: EventLog, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        await say(RunLog(log, lease), 1, 2)
        events = streams.follow(bench.tenant, lease.id)
        assert (await anext(events)).seq == 1
        await events.aclose()
        assert lease.id not in log.watch.waiting


class TestEnded:
    async def test_is_told_at_once_in_this_process(
        self, bench: Bench, log: EventLog, streams: RunStreams
    ) -> None:
        lease = await bench.planted()
        waiting = asyncio.create_task(streams.ended(bench.tenant, lease.id, timeout_s=10))
        await asyncio.sleep(0.2)
        began = monotonic()
        await finish(RunLog(log, lease))
        assert await waiting
        assert monotonic() - began < POLL_S / 2

    async def test_is_not_overheard_while_looking(
        self, bench: Bench, log: EventLog, streams: RunStreams, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The run ends, and says so, between our look at it and our waiting for news."""
        lease = await bench.planted()
        look, looks = RunStreams._ended, 0

        async def look_too_early(self: RunStreams, tenant: Tenant, run_id: UUID, **how: bool) -> bool:
            nonlocal looks
            looks += 1
            seen = await look(self, tenant, run_id, **how)
            if looks == 1:
                await finish(RunLog(log, lease))
            return seen

        monkeypatch.setattr(RunStreams, "_ended", look_too_early)
        began = monotonic()
        assert await streams.ended(bench.tenant, lease.id, timeout_s=10)
        assert looks == 2
        assert monotonic() - began < POLL_S / 2

    async def test_answers_no_after_the_time(self, bench: Bench, streams: RunStreams) -> None:
        lease = await bench.planted()
        assert not await streams.ended(bench.tenant, lease.id, timeout_s=0.1)
