"""The statement that stores what runs told and did: a portion with an old fence leaves nothing behind."""

from __future__ import annotations

from typing import Any

import pytest
from ag_ui.core import CustomEvent
from sqlalchemy import func, select

from app.agent.core.interfaces import StepRecord
from app.db.postgres.models.agents import (
    AgentRun,
    AgentRunCheckpoint,
    AgentRunCheckpointWrite,
    AgentRunEvent,
    AgentRunStep,
    RunStatus,
)
from app.db.session import Database
from app.services.runs.commit import store
from app.services.runs.event_log import EventLog
from app.services.runs.leases import Lease
from app.services.runs.run_log import CheckpointRow, Portion, RunLog, WriteRow, telling
from tests.services.runs.conftest import Bench, succeeded

pytestmark = pytest.mark.asyncio(loop_scope="session")
PARTS = {
    "events": AgentRunEvent,
    "steps": AgentRunStep,
    "checkpoints": AgentRunCheckpoint,
    "writes": AgentRunCheckpointWrite,
}


def portion(log: EventLog, lease: Lease) -> Portion:
    """Something of every kind, and the run's end."""
    run = RunLog(log, lease)
    run.record(StepRecord("call", "http", 1, "succeeded", 0, 1.0, 1, output={"a": 1}))
    run.keep([CheckpointRow("", "c1", None, b"body", b"channels", "{}")])
    run.keep([], [WriteRow("", "c1", "task", 0, "", "channel", b"value")])
    ending = succeeded(lease)
    run.pending.events.append(telling(CustomEvent(name="n", value=1), "call"))
    run.pending.ending = ending
    return run.taken()


async def stored(bench: Bench, lease: Lease) -> dict[str, int]:
    """How many rows the run has of each kind."""
    counts = {}
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        for name, model in PARTS.items():
            rows: Any = select(func.count()).select_from(model).where(model.run_id == lease.id)
            counts[name] = (await session.execute(rows)).scalar_one()
    return counts


async def commit(database: Database, *portions: Portion) -> set[Any]:
    return set(await store(database, [(one, one.rows()) for one in portions], writer="tests"))


async def as_left(bench: Bench, lease: Lease) -> tuple[Any, ...]:
    row: AgentRun = await bench.run(lease.id)
    return row.status, row.finished_at is not None, row.output, row.last_seq, row.lease_owner


class TestFence:
    async def test_keeps_out_all_of_an_old_portion_and_nothing_of_the_others_beside_it(
        self, bench: Bench, database: Database, log: EventLog
    ) -> None:
        before, old, after = [await bench.planted() for _ in range(3)]
        await bench.fence_off(old)
        untouched = await as_left(bench, old)
        accepted = await commit(database, *(portion(log, lease) for lease in (before, old, after)))
        assert accepted == {before.id, after.id}
        assert [await stored(bench, lease) for lease in (before, old, after)] == [
            dict.fromkeys(PARTS, 1),
            dict.fromkeys(PARTS, 0),
            dict.fromkeys(PARTS, 1),
        ]
        assert await as_left(bench, old) == untouched
        assert await as_left(bench, before) == (RunStatus.SUCCEEDED, True, {"a": 1}, 1, None)

    async def test_lets_the_new_holder_store_what_the_old_one_may_not(
        self, bench: Bench, database: Database, log: EventLog
    ) -> None:
        old = await bench.planted()
        await bench.fence_off(old)
        new = Lease(old.org_id, old.id, old.fence + 1)
        assert await commit(database, portion(log, old)) == set()
        assert await commit(database, portion(log, new)) == {new.id}
        assert await stored(bench, new) == dict.fromkeys(PARTS, 1)

    async def test_keeps_out_what_comes_after_the_end(
        self, bench: Bench, database: Database, log: EventLog
    ) -> None:
        lease = await bench.planted()
        await commit(database, portion(log, lease))
        late = RunLog(log, lease, seq=1)
        late.record(StepRecord("late", "http", 1, "succeeded", 0, 1.0, 1))
        assert await commit(database, late.taken()) == set()
        assert await stored(bench, lease) == dict.fromkeys(PARTS, 1)

    async def test_lets_a_portion_whose_answer_was_lost_be_stored_once(
        self, bench: Bench, database: Database, log: EventLog
    ) -> None:
        lease = await bench.planted()
        again = portion(log, lease)
        assert await commit(database, again) == await commit(database, again) == {lease.id}
        assert await stored(bench, lease) == dict.fromkeys(PARTS, 1)
