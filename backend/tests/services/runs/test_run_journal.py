"""The step journal: one row per step, written under the run's fence."""

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from ag_ui.core import CustomEvent
from sqlalchemy import select

from app.agent.core.interfaces import StepRecord
from app.core.errors import Unavailable
from app.db.postgres.models.agents import AgentRunStep
from app.services.runs.event_log import EventLog
from app.services.runs.journal import RunJournal
from app.services.runs.leases import Lease
from app.services.runs.run_log import FencedOff, RunLog
from tests.services.runs.conftest import Bench, failing, finish

pytestmark = pytest.mark.asyncio(loop_scope="session")


def step(**changes: object) -> StepRecord:
    values = {
        "node_path": "ask",
        "node_type": "llm",
        "visit": 1,
        "status": "succeeded",
        "started_at_ms": 1_700_000_000_123,
        "duration_ms": 12.5,
        "attempts": 1,
        "output": {"text": "hi"},
    }
    return StepRecord(**values | changes)  # type: ignore[arg-type]


@pytest_asyncio.fixture(loop_scope="session")
async def log(log: EventLog) -> AsyncIterator[EventLog]:
    """One that writes."""
    async with log.writer():
        yield log


async def stored(bench: Bench, lease: Lease) -> list[AgentRunStep]:
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        rows = await session.execute(select(AgentRunStep).where(AgentRunStep.run_id == lease.id))
        return list(rows.scalars())


class TestFinished:
    async def test_is_stored_with_its_times(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        journal = RunJournal(RunLog(log, lease))
        await journal.finished(step(handle="out", writes=[("notes", [1])]))
        await journal.ready()
        (row,) = await stored(bench, lease)
        assert (row.output, row.duration_ms) == ({"text": "hi"}, 12.5)
        assert (row.handle, row.writes) == ("out", [["notes", [1]]])
        assert row.started_at.timestamp() == pytest.approx(1_700_000_000.123)

    async def test_is_stored_with_the_event_that_tells_it(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        journal = RunJournal(RunLog(log, lease))
        await journal.finished(step(), CustomEvent(name="node.finished", value={}))
        await journal.ready()
        (event,) = await bench.events(lease.id)
        assert (event.node_path, event.event["name"]) == ("ask", "node.finished")

    async def test_twice_keeps_the_first(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        for text in ("hi", "other"):
            journal = RunJournal(RunLog(log, lease))
            await journal.finished(step(output={"text": text}))
            await journal.ready()
        assert [row.output for row in await stored(bench, lease)] == [{"text": "hi"}]

    async def test_is_stored_call_by_call(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        journal = RunJournal(RunLog(log, lease))
        for call in (0, 1, 2):
            await journal.finished(step(call=call, output={"call": call}))
        await journal.ready()
        rows = await stored(bench, lease)
        assert sorted((row.call, row.output) for row in rows) == [(n, {"call": n}) for n in (0, 1, 2)]

    async def test_of_a_call_that_was_of_no_use_gives_way_to_the_next_try(
        self, bench: Bench, log: EventLog
    ) -> None:
        lease = await bench.planted()
        for told in (step(call=1, status="failed", output=None), step(call=1)):
            journal = RunJournal(RunLog(log, lease))
            await journal.finished(told)
            await journal.ready()
        assert [row.status for row in await stored(bench, lease)] == ["succeeded"]

    async def test_of_a_call_that_failed_and_was_told_stays(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        for told in (step(call=1, status="failed"), step(call=1)):
            journal = RunJournal(RunLog(log, lease))
            await journal.finished(told)
            await journal.ready()
        assert [row.status for row in await stored(bench, lease)] == ["failed"]

    async def test_of_a_fenced_off_run_is_not_stored(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await bench.fence_off(lease)
        journal = RunJournal(RunLog(log, lease))
        await journal.finished(step())
        with pytest.raises(FencedOff):
            await journal.ready()
        assert await stored(bench, lease) == []

    async def test_with_text_that_no_row_can_hold_is_stored(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        journal = RunJournal(RunLog(log, lease))
        await journal.finished(step(output={"text": "a\x00b"}))
        await journal.ready()
        assert [row.output for row in await stored(bench, lease)] == [{"text": "a\ufffdb"}]


class TestBegan:
    async def test_is_there_before_the_effect(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await RunJournal(RunLog(log, lease)).began(step(status="started", output=None, attempts=0))
        assert [row.status for row in await stored(bench, lease)] == ["started"]

    async def test_becomes_what_came_of_it(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        journal = RunJournal(RunLog(log, lease))
        await journal.began(step(status="started", output=None, attempts=0))
        await journal.finished(step())
        await journal.ready()
        (row,) = await stored(bench, lease)
        assert (row.status, row.attempts, row.output) == ("succeeded", 1, {"text": "hi"})

    async def test_of_a_fenced_off_run_does_not_let_the_effect_happen(
        self, bench: Bench, log: EventLog
    ) -> None:
        lease = await bench.planted()
        await bench.fence_off(lease)
        with pytest.raises(FencedOff):
            await RunJournal(RunLog(log, lease)).began(step(status="started", output=None))


class TestDurabilityExit:
    async def test_waits_for_nothing(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        run = RunLog(log, lease)
        journal = RunJournal(run, awaited=False)
        await journal.finished(step())
        await journal.ready()
        assert run.stored == 0
        assert await finish(run)
        assert len(await stored(bench, lease)) == 1


class TestDatabaseThatIsAway:
    async def test_for_a_moment_fails_no_step(
        self, bench: Bench, log: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = await bench.planted()
        monkeypatch.setattr("app.services.runs.event_log.store", failing(2))
        journal = RunJournal(RunLog(log, lease))
        await journal.finished(step())
        await journal.ready()
        assert [row.output for row in await stored(bench, lease)] == [{"text": "hi"}]

    async def test_for_longer_than_a_lease_is_an_error(
        self, bench: Bench, log: EventLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        lease = await bench.planted()
        monkeypatch.setattr("app.services.runs.event_log.store", failing(2))
        journal = RunJournal(RunLog(log, lease, patience_s=0.1))
        await journal.finished(step())
        with pytest.raises(Unavailable):
            await journal.ready()
        await asyncio.sleep(1)

    async def test_is_not_confused_with_a_statement_that_is_wrong(self, bench: Bench, log: EventLog) -> None:
        bad, good = await bench.planted(), await bench.planted()
        broken, whole = RunJournal(RunLog(log, bad)), RunJournal(RunLog(log, good))
        await broken.finished(step(duration_ms="long"))
        await whole.finished(step())
        with pytest.raises(Exception, match=r"duration|long|float"):
            await broken.ready()
        await whole.ready()
        assert len(await stored(bench, good)) == 1
