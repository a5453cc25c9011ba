"""The step journal: one row per step, written under the run's fence."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.exc import DBAPIError

from app.agent.core.interfaces import StepRecord
from app.db.postgres.models.agents import AgentRunStep
from app.services.runs.event_log import EventLog, RunLog
from app.services.runs.journal import RunJournal
from app.services.runs.leases import Lease
from tests.services.runs.conftest import Bench

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


def failing_at(engine: Any, mark: str, *, times: int) -> AbstractContextManager[None]:
    """The connection breaks at the first `times` statements that contain `mark`."""
    left = [times]

    def fail(connection: object, cursor: object, statement: str, *rest: object) -> None:
        if mark in statement and left[0]:
            left[0] -= 1
            raise ConnectionResetError("the database restarts")

    @contextmanager
    def listening() -> Iterator[None]:
        event.listen(engine, "before_cursor_execute", fail)
        try:
            yield
        finally:
            event.remove(engine, "before_cursor_execute", fail)

    return listening()


def journal(bench: Bench, log: EventLog, lease: Lease, **given: float) -> RunJournal:
    return RunJournal(bench.resources.database, RunLog(log, lease), **given)


async def stored(bench: Bench, lease: Lease) -> list[AgentRunStep]:
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        rows = await session.execute(select(AgentRunStep).where(AgentRunStep.run_id == lease.id))
        return list(rows.scalars())


class TestFinished:
    async def test_is_stored_with_its_times(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await journal(bench, log, lease).finished(step())
        (row,) = await stored(bench, lease)
        assert (row.output, row.duration_ms) == ({"text": "hi"}, 12.5)
        assert row.started_at.timestamp() == pytest.approx(1_700_000_000.123)

    async def test_twice_keeps_the_first(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await journal(bench, log, lease).finished(step())
        await journal(bench, log, lease).finished(step(output={"text": "other"}))
        assert [row.output for row in await stored(bench, lease)] == [{"text": "hi"}]

    async def test_of_a_fenced_off_run_is_not_stored(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await bench.fence_off(lease)
        await journal(bench, log, lease).finished(step())
        assert await stored(bench, lease) == []

    async def test_with_text_that_no_row_can_hold_is_stored(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await journal(bench, log, lease).finished(step(output={"text": "a\x00b"}))
        assert [row.output for row in await stored(bench, lease)] == [{"text": "a\ufffdb"}]


class TestDatabaseThatIsAway:
    async def test_for_a_moment_fails_no_step(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        with failing_at(bench.resources.database.engine.sync_engine, "agent_run_steps", times=2):
            await journal(bench, log, lease).finished(step())
        assert [row.output for row in await stored(bench, lease)] == [{"text": "hi"}]

    async def test_while_another_takes_the_run_over_stores_nothing(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        await bench.fence_off(lease)
        with failing_at(bench.resources.database.engine.sync_engine, "agent_run_steps", times=1):
            await journal(bench, log, lease).finished(step())
        assert await stored(bench, lease) == []

    async def test_for_longer_than_a_lease_is_an_error(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        with (
            failing_at(bench.resources.database.engine.sync_engine, "agent_run_steps", times=99),
            pytest.raises(DBAPIError),
        ):
            await journal(bench, log, lease, lease_s=0.3).finished(step())

    async def test_is_not_confused_with_a_statement_that_is_wrong(self, bench: Bench, log: EventLog) -> None:
        lease = await bench.planted()
        with pytest.raises(DBAPIError):
            await journal(bench, log, lease).finished(step(duration_ms="long"))
