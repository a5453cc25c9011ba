"""The event log: gapless, joined, fenced, and complete whatever happens to the database meanwhile."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from ag_ui.core import CustomEvent, TextMessageContentEvent, TextMessageStartEvent
from sqlalchemy import make_url
from structlog.testing import capture_logs

from app.db.connection import open_engine
from app.db.postgres.models.agents import RunStatus
from app.db.session import make_database
from app.embedded import Services
from app.services.runs.event_log import EventLog
from app.services.runs.leases import Lease
from app.services.runs.run_log import RunLog
from app.services.runs.watch import Watch
from tests.services.runs.conftest import Bench, finish, nobody_wakes
from tests.trust.proxy import Proxy, open_proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")
OpenLog = Callable[[Lease], RunLog]


def delta(text: str, message: str = "m") -> TextMessageContentEvent:
    return TextMessageContentEvent(message_id=message, delta=text)


def note(value: object) -> CustomEvent:
    return CustomEvent(name="note", value=value)


async def texts(bench: Bench, lease: Lease) -> list[str]:
    return [event.event["delta"] for event in await bench.events(lease.id)]


async def notes(bench: Bench, lease: Lease) -> list[object]:
    return [event.event["value"] for event in await bench.events(lease.id)]


@asynccontextmanager
async def log_behind_proxy(services: Services) -> AsyncIterator[tuple[EventLog, Proxy]]:
    """An event log whose connections to the database can be cut."""
    url = make_url(services.database_url)
    assert url.host
    assert url.port
    async with open_proxy(url.host, url.port) as proxy:
        near = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        async with open_engine(near, pool_size=2, timeout_s=3) as engine:
            yield EventLog(make_database(engine, nobody_wakes), Watch()), proxy


class TestSequence:
    async def test_is_gapless_in_each_of_many_concurrent_runs(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        leases = [await bench.planted() for _ in range(12)]

        async def speak(run: RunLog) -> None:
            for number in range(40):
                await run.emit(note(number))
                if number % 7 == 0:
                    await asyncio.sleep(0.003)

        async with log.writer():
            await asyncio.gather(*(speak(run_log(lease)) for lease in leases))
        for lease in leases:
            events = await bench.events(lease.id)
            assert [event.seq for event in events] == list(range(1, 41))
            assert [event.event["value"] for event in events] == list(range(40))
            assert (await bench.run(lease.id)).last_seq == 40


class TestJoining:
    async def test_makes_one_event_of_waiting_deltas(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        lease = await bench.planted()
        run = run_log(lease)
        for word in ("one ", "two ", "three"):
            await run.emit(delta(word))
        await log.flush()
        assert await texts(bench, lease) == ["one two three"]

    async def test_keeps_messages_nodes_and_other_events_apart(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        lease = await bench.planted()
        run = run_log(lease)
        await run.emit(delta("a", "one"))
        await run.emit(delta("b", "two"))
        await run.emit(delta("c", "two"), node_path="other")
        await run.emit(TextMessageStartEvent(message_id="three", role="assistant"), node_path="other")
        await run.emit(delta("d", "two"), node_path="other")
        await log.flush()
        stored = [event.event.get("delta") for event in await bench.events(lease.id)]
        assert stored == ["a", "b", "c", None, "d"]

    async def test_loses_and_doubles_nothing_of_what_comes_during_a_write(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        lease = await bench.planted()
        run = run_log(lease)
        words = [f"{number} " for number in range(400)]
        async with log.writer():
            for number, word in enumerate(words):
                await run.emit(delta(word))
                await asyncio.sleep(0 if number % 3 else 0.002)
        stored = await texts(bench, lease)
        assert "".join(stored) == "".join(words)
        assert 1 < len(stored) < len(words)


class TestFence:
    async def test_of_one_run_does_not_fail_the_others(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        leases = [await bench.planted() for _ in range(3)]
        runs = [run_log(lease) for lease in leases]
        await bench.fence_off(leases[1])
        for run in runs:
            await run.emit(note("x"))
        await log.flush()
        assert [len(await bench.events(lease.id)) for lease in leases] == [1, 0, 1]
        assert [run.fenced_off for run in runs] == [False, True, False]

    async def test_leaves_nothing_waiting(self, bench: Bench, log: EventLog, run_log: OpenLog) -> None:
        lease = await bench.planted()
        run = run_log(lease)
        await bench.fence_off(lease)
        await run.emit(note(1))
        await log.flush()
        await run.emit(note(2))
        assert not run.pending
        assert log.dirty == {}


class TestFinish:
    async def test_stores_state_and_terminal_event_together(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        lease = await bench.planted()
        run = run_log(lease)
        await run.emit(note(1))
        assert await finish(run)
        row = await bench.run(lease.id)
        assert [event.type for event in await bench.events(lease.id)] == ["CUSTOM", "RUN_FINISHED"]
        assert (row.status, row.output, row.last_seq) == (RunStatus.SUCCEEDED, {"a": 1}, 2)
        assert row.finished_at
        assert (row.lease_owner, row.lease_until) == (None, None)

    async def test_of_a_fenced_off_run_writes_nothing(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        lease = await bench.planted()
        await bench.fence_off(lease)
        assert not await finish(run_log(lease))
        assert await bench.events(lease.id) == []
        assert (await bench.run(lease.id)).finished_at is None

    async def test_leaves_no_room_for_late_events(
        self, bench: Bench, log: EventLog, run_log: OpenLog
    ) -> None:
        lease = await bench.planted()
        await finish(run_log(lease))
        late = run_log(lease)
        late.seq = 1
        await late.emit(note("late"))
        await log.flush()
        assert [event.type for event in await bench.events(lease.id)] == ["RUN_FINISHED"]


class TestUnstorableText:
    async def test_does_not_stop_the_batch(self, bench: Bench, log: EventLog, run_log: OpenLog) -> None:
        bad, good = await bench.planted(), await bench.planted()
        await run_log(bad).emit(delta("a\x00b\ud800c 👍"))
        await run_log(bad).emit(note({"n": float("nan"), "k\x00": [float("inf"), 1.5]}))
        await run_log(good).emit(note("fine"))
        await log.flush()
        assert await notes(bench, good) == ["fine"]
        assert (await bench.events(bad.id))[-1].type in ("TEXT_MESSAGE_CONTENT", "CUSTOM")

    async def test_is_stored_as_far_as_it_can_be(self, bench: Bench, log: EventLog, run_log: OpenLog) -> None:
        lease = await bench.planted()
        run = run_log(lease)
        await run.emit(delta("a\x00b\ud800c 👍 \\u0000"))
        await run.emit(note({"n": float("nan"), "k\x00": [float("inf"), 1.5]}))
        await log.flush()
        first, second = await bench.events(lease.id)
        assert first.event["delta"] == "a\ufffdb\ufffdc 👍 \\u0000"
        assert second.event["value"] == {"n": None, "k\ufffd": [None, 1.5]}


class TestDatabaseAway:
    async def test_for_a_moment_loses_and_doubles_nothing(self, services: Services, bench: Bench) -> None:
        lease = await bench.planted()
        async with log_behind_proxy(services) as (log, proxy), log.writer():
            run = RunLog(log, lease)
            for number in range(150):
                await run.emit(note(number))
                if number == 50:
                    proxy.cut()
                if number == 100:
                    proxy.restore()
                await asyncio.sleep(0.01)
            assert await finish(run)
        events = await bench.events(lease.id)
        assert [event.seq for event in events] == list(range(1, 152))
        assert [event.event["value"] for event in events[:-1]] == list(range(150))

    async def test_is_told_once_however_often_it_is_tried(self, services: Services, bench: Bench) -> None:
        lease = await bench.planted()
        async with log_behind_proxy(services) as (log, proxy):
            proxy.cut()
            with capture_logs() as logs:
                async with log.writer():
                    await RunLog(log, lease).emit(note(1))
                    while not [entry for entry in logs if entry["event"] == "event_log_write_failed"]:
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(1)
                    proxy.restore()
                    while log.dirty or log.writing.locked():
                        await asyncio.sleep(0.01)
                    await asyncio.sleep(0)
            told = [entry["event"] for entry in logs]
        assert told == ["event_log_write_failed", "outage_over"]
        assert await notes(bench, lease) == [1]

    async def test_at_the_end_of_the_process_is_told_and_does_no_harm(
        self, services: Services, bench: Bench
    ) -> None:
        lease = await bench.planted()
        async with log_behind_proxy(services) as (log, proxy):
            proxy.cut()
            with capture_logs() as logs:
                async with log.writer():
                    await RunLog(log, lease).emit(note(1))
            (last,) = [entry for entry in logs if entry["event"] == "events_not_stored"]
        assert last["runs"] == 1

    async def test_between_commit_and_answer_doubles_nothing(self, services: Services, bench: Bench) -> None:
        """The commit took place, but nobody was told: the same events are sent again."""
        lease = await bench.planted()
        async with log_behind_proxy(services) as (log, proxy):
            run = RunLog(log, lease)
            await run.emit(delta("known "))
            await log.flush()
            await run.emit(delta("in doubt"))
            writing = asyncio.create_task(log.flush())
            await _commit_in_silence(proxy, bench, lease)
            with pytest.raises(Exception, match=r"connection|closed|Timeout"):
                await writing
            await run.emit(delta(", and more"))
            proxy.restore()
            await log.flush()
        assert await texts(bench, lease) == ["known ", "in doubt", ", and more"]
        assert (await bench.run(lease.id)).last_seq == 3

    async def test_does_not_mix_up_text_that_comes_meanwhile(self, services: Services, bench: Bench) -> None:
        lease = await bench.planted()
        async with log_behind_proxy(services) as (log, proxy):
            run = RunLog(log, lease)
            proxy.cut()
            for word in ("one ", "two ", "three"):
                await run.emit(delta(word))
                with pytest.raises(Exception, match=r"[Cc]onnect"):
                    await log.flush()
            proxy.restore()
            await log.flush()
        assert "".join(await texts(bench, lease)) == "one two three"


async def _commit_in_silence(proxy: Proxy, bench: Bench, lease: Lease) -> None:
    """Throws away every answer from the moment the events are stored, then cuts the connection."""
    proxy.latency_s = 0.1
    async with asyncio.timeout(20):
        while len(await bench.events(lease.id)) < 2:
            await asyncio.sleep(0.01)
    proxy.mute = True
    await asyncio.sleep(0.2)
    proxy.latency_s = 0
    proxy.cut()
