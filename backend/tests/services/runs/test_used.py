"""What a run has used is counted however it ends, wherever that is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio

from app.agent.core.interfaces import Capability, ChatEvent, ChatRequest, Finished, TextDelta, Usage
from app.core.errors import Invalid
from app.db.postgres.models.agents import AgentRun, RunStatus
from app.db.postgres.repositories.usage import GroupBy, ProjectUsage
from app.services.run_service import CreatedRun
from app.services.runs import executor as executor_module
from app.services.runs.executor import Executor
from tests.factories import Factory, Gate
from tests.services.runs.conftest import Bench
from tests.services.runs.test_recovery import ended, expire, two_calls
from tests.services.runs.test_replays import replay_of
from tests.services.runs.test_suspended_runs import PLAIN, at_rest, line

pytestmark = pytest.mark.asyncio(loop_scope="session")

ONCE = {"input_tokens": 2, "output_tokens": 3, "cost": {"USD": "0.5"}}
NOTHING = {"input_tokens": 0, "output_tokens": 0}


@dataclass(slots=True)
class Priced:
    """A model whose every call costs half a dollar."""

    name: str = "priced"
    capabilities: frozenset[Capability] = frozenset()
    calls: list[ChatRequest] = field(default_factory=list)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        self.calls.append(request)
        yield TextDelta("Well.")
        yield Finished(usage=Usage(2, 3, {"USD": Decimal("0.5")}))


@pytest_asyncio.fixture(loop_scope="session")
async def priced(bench: Bench, gate: Gate, make: Factory) -> str:
    """The slug of a model with prices."""
    behind = bench.resources.providers[gate.slug]
    bench.resources.providers[gate.slug] = lambda name: Priced() if name == "priced" else behind(name)
    return await make.model(bench.member, provider=gate.slug, model="priced")


@pytest.fixture
def graph(gate: Gate, priced: str) -> dict[str, Any]:
    """A call that is paid for, then one that waits until the gate opens."""
    return two_calls(gate.slug, priced)


def asking(model: str) -> dict[str, Any]:
    """A call that is paid for, then a person."""
    write = {"model": "main", "prompt": [{"role": "user", "content": "{{ inputs.name }}"}]}
    nodes = (
        {"id": "write", "type": "llm", "config": write},
        {"id": "ask", "type": "human", "config": {"message": "{{ write.text }}?"}},
    )
    return PLAIN | {"bindings": {"models": {"main": model}}} | line(*nodes)


def check(row: AgentRun, status: RunStatus, code: str, used: dict[str, Any] = ONCE) -> None:
    assert (row.status, row.error and row.error["code"]) == (status, code)
    assert row.usage
    by_model = row.usage["by_model"]
    assert {key: row.usage[key] for key in used} == used
    assert list(by_model.values()) == ([ONCE] if used is ONCE else [])


async def amid_the_second(bench: Bench, executor: Executor, gate: Gate, graph: dict[str, Any]) -> CreatedRun:
    run = await bench.start(executor, graph)
    await gate.entered.wait()
    return run


@pytest.fixture
def one(bench: Bench) -> Executor:
    return bench.executor("local:one", claims=False, grace_s=0)


@pytest.fixture
def other(bench: Bench) -> Executor:
    return bench.executor("local:other", sweep_interval_s=0.1, grace_s=0)


class TestUsed:
    async def test_by_a_run_that_is_cancelled_amid_a_call(
        self, bench: Bench, one: Executor, gate: Gate, graph: dict[str, Any]
    ) -> None:
        async with one.running():
            run = await amid_the_second(bench, one, gate, graph)
            await bench.runs(one).cancel(run.id)
            check(await ended(bench, run.id), RunStatus.CANCELLED, "cancelled")

    async def test_by_a_run_that_takes_too_long(self, bench: Bench, graph: dict[str, Any]) -> None:
        hasty = bench.executor("local:hasty", claims=False, timeout_s=1)
        async with hasty.running():
            run = await bench.start(hasty, graph)
            check(await ended(bench, run.id), RunStatus.FAILED, "timeout")

    async def test_by_a_run_that_is_cancelled_while_it_waits_for_a_person(
        self, bench: Bench, one: Executor, other: Executor, priced: str
    ) -> None:
        async with one.running():
            run = await bench.start(one, asking(priced))
            await at_rest(bench, run.id)
        await bench.runs(other).cancel(run.id)
        async with other.running():
            check(await ended(bench, run.id), RunStatus.CANCELLED, "cancelled")

    async def test_by_a_run_that_is_given_up(
        self, bench: Bench, one: Executor, gate: Gate, graph: dict[str, Any]
    ) -> None:
        resigned = bench.executor("local:resigned", sweep_interval_s=0.1, recoveries=0)
        async with one.running():
            run = await amid_the_second(bench, one, gate, graph)
            await one.log.flush()
            await expire(bench, run.id)
            async with resigned.running():
                check(await ended(bench, run.id), RunStatus.FAILED, "process_died")

    async def test_by_a_run_whose_graph_no_process_can_go_on_with(
        self, bench: Bench, one: Executor, other: Executor, priced: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refused(*_: Any) -> Any:
            raise Invalid("no such node type", code="invalid_graph")

        async with one.running():
            run = await bench.start(one, asking(priced))
            await at_rest(bench, run.id)
        monkeypatch.setattr(executor_module, "taken_up", refused)
        await due(bench, run.id)
        async with other.running():
            check(await ended(bench, run.id), RunStatus.FAILED, "invalid_graph")

    async def test_is_in_the_projects_usage(
        self, bench: Bench, one: Executor, gate: Gate, graph: dict[str, Any]
    ) -> None:
        async with one.running():
            run = await amid_the_second(bench, one, gate, graph)
            await bench.runs(one).cancel(run.id)
            await ended(bench, run.id)
        since, until = (datetime.now(UTC) + timedelta(days=days) for days in (-1, 1))
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            whole, _ = await ProjectUsage(session, bench.tenant).by(GroupBy.MODEL, since=since, until=until)
        assert (whole.input_tokens, whole.output_tokens, whole.cost) == (2, 3, {"USD": "0.5"})

    async def test_by_a_replay_that_is_cancelled_before_it_begins_is_nothing(
        self, bench: Bench, one: Executor, other: Executor, gate: Gate, graph: dict[str, Any]
    ) -> None:
        gate.opened.set()
        async with one.running():
            run = await bench.start(one, graph)
            await ended(bench, run.id)
            replay = await replay_of(bench, one, run.id)
        await bench.runs(other).cancel(replay)
        async with other.running():
            check(await ended(bench, replay), RunStatus.CANCELLED, "cancelled", NOTHING)


async def due(bench: Bench, run_id: UUID) -> None:
    """A suspended run's time has come."""
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        row = await session.get_one(AgentRun, (bench.tenant.org_id, run_id))
        row.due_at = row.created_at
