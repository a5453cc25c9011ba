"""Runs that wait for people and times, in whichever process goes on with them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.agent.graph import crew as crew_module
from app.agent.graph.ports import SystemClock
from app.core.ids import new_id
from app.db.postgres.models.agents import AgentRun, AgentRunInterrupt, AgentRunStep, RunMode, RunStatus
from app.embedded import Services
from app.services.descendant_service import DescendantService, Wanted
from app.services.interrupt_service import Answer, InterruptService, Person
from app.services.runs.executor import Executor
from app.services.runs.run_log import Ending, RunLog
from tests.counting_model import Counting, Flaky
from tests.factories import Factory, Gate
from tests.graphs import HELLO_GRAPH
from tests.services.runs.conftest import Bench, finish
from tests.services.runs.test_recovery import counting, ended  # noqa: F401  (a fixture)

pytestmark = pytest.mark.asyncio(loop_scope="session")

PLAIN = HELLO_GRAPH | {"interface": {}}
ANN = Person(new_id(), "ann@example.org", oversees=True)


def line(*nodes: dict[str, Any], output: dict[str, Any] | None = None) -> dict[str, Any]:
    parts = [
        {"id": "start", "type": "start"},
        *nodes,
        {"id": "done", "type": "end", "config": {"output": output or {}}},
    ]
    names = [part["id"] for part in parts]
    edges = [{"source": a, "target": b} for a, b in pairwise(names)]
    return {"nodes": parts, "edges": edges}


def reviewed(model: str) -> dict[str, Any]:
    """For each of three items: a model call, then a person."""
    prompt = [{"role": "user", "content": "{{ item }}"}]
    body = line(
        {"id": "write", "type": "llm", "config": {"model": "main", "prompt": prompt}},
        {"id": "ask", "type": "human", "config": {"message": "{{ write.text }}?"}},
        output={"text": "{{ write.text }}", "by": "{{ ask.answered_by }}"},
    )
    each = {"id": "each", "type": "map", "config": {"items": "{{ fork.parts }}", "graph": body}}
    fork = {"id": "fork", "type": "transform", "config": {"values": {"parts": "['a', 'b', 'c']"}}}
    whole = line(fork, each, output={"results": "{{ each.results }}"})
    return PLAIN | {"bindings": {"models": {"main": model}}} | whole


def asking(name: str) -> dict[str, Any]:
    return {"id": name, "type": "human", "config": {"message": f"{name}?"}}


def beside_a_model(model: str, *nodes: dict[str, Any]) -> dict[str, Any]:
    """`nodes` in a line, beside a call of the model."""
    whole = line(*nodes)
    prompt = [{"role": "user", "content": "Well?"}]
    whole["nodes"].append({"id": "write", "type": "llm", "config": {"model": "main", "prompt": prompt}})
    whole["edges"] += [{"source": "start", "target": "write"}, {"source": "write", "target": "done"}]
    return PLAIN | {"bindings": {"models": {"main": model}}} | whole


def pausing(seconds: float) -> dict[str, Any]:
    return PLAIN | line({"id": "nap", "type": "wait", "config": {"for_s": seconds}})


@pytest.fixture
def first(bench: Bench) -> Executor:
    return bench.executor("local:first", claims=False)


@pytest.fixture
def other(bench: Bench) -> Executor:
    return bench.executor("local:other", sweep_interval_s=0.1)


async def at_rest(bench: Bench, run_id: UUID) -> AgentRun:
    async with asyncio.timeout(15):
        while (row := await bench.run(run_id)).status not in (RunStatus.INTERRUPTED, RunStatus.WAITING):
            await asyncio.sleep(0.02)
    return row


async def questions(bench: Bench, run_id: UUID) -> list[AgentRunInterrupt]:
    statement = select(AgentRunInterrupt).where(
        AgentRunInterrupt.org_id == bench.tenant.org_id,
        AgentRunInterrupt.run_id == run_id,
        AgentRunInterrupt.status == "open",
    )
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        return list((await session.execute(statement.order_by(AgentRunInterrupt.node_path))).scalars())


async def asked(bench: Bench, run_id: UUID, *, at: str | None = None) -> AgentRunInterrupt:
    """The first question, as soon as it is open; of the node `at`, if that is given."""
    async with asyncio.timeout(15):
        while True:
            for one in await questions(bench, run_id):
                if at in (None, one.node_path):
                    return one
            await asyncio.sleep(0.02)


async def answer(bench: Bench, run_id: UUID, *, at: str | None = None) -> None:
    inbox = InterruptService(bench.resources.database, bench.tenant, lambda _: None)
    await inbox.answer(run_id, (await asked(bench, run_id, at=at)).id, Answer(), ANN)


async def done(bench: Bench, run_id: UUID, node_path: str) -> None:
    """Returns once the node has come to its end."""
    ended_steps = select(AgentRunStep.status).where(
        AgentRunStep.run_id == run_id, AgentRunStep.node_path == node_path
    )
    async with asyncio.timeout(15):
        while True:
            async with bench.resources.database.unit_of_work(bench.tenant) as session:
                if (await session.execute(ended_steps)).scalar_one_or_none() == "succeeded":
                    return
            await asyncio.sleep(0.02)


class TestQuestion:
    async def test_is_gone_on_with_by_another_process_which_repeats_nothing(
        self,
        bench: Bench,
        first: Executor,
        other: Executor,
        gate: Gate,
        make: Factory,
        counting: Counting,  # noqa: F811
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        async with first.running():
            run = await bench.start(first, reviewed(slug))
            row = await at_rest(bench, run.id)
            assert (row.lease_owner, row.lease_until, first.tasks) == (None, None, {})
        async with other.running():
            for _ in range(2):
                await answer(bench, run.id)
                await asyncio.sleep(0.3)
                await at_rest(bench, run.id)
            await answer(bench, run.id)
            row = await ended(bench, run.id)
        assert row.status is RunStatus.SUCCEEDED
        assert row.output is not None
        assert [one["by"] for one in row.output["results"]] == ["ann@example.org"] * 3
        assert (len(counting.calls), row.recoveries, row.answers) == (3, 0, 3)
        names = [event.event.get("name") for event in await bench.events(run.id)]
        assert (names.count("interrupt"), names.count("run.suspended")) == (3, 3)
        assert (names.count("run.resumed"), names.count("run.continued")) == (3, 0)
        steps = select(AgentRunStep.node_path, AgentRunStep.status).where(AgentRunStep.run_id == run.id)
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            kept = {path: status for path, status in (await session.execute(steps)).all()}
        assert kept["each/1/ask"] == "succeeded"

    async def test_answered_while_the_run_leaves_its_process_is_not_overlooked(self, bench: Bench) -> None:
        lease = await bench.planted()
        heard = update(AgentRun).where(AgentRun.id == lease.id).values(answers=1)
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            await session.execute(heard)
        executor = bench.executor("local:leaving")
        run = executor.log.open(lease)
        assert await finish(run, Ending(RunStatus.INTERRUPTED, answers=0))
        row = await bench.run(lease.id)
        assert (row.status, row.due_at, row.lease_until) == (RunStatus.QUEUED, None, None)

    async def test_that_was_seen_leaves_the_run_at_rest(self, bench: Bench) -> None:
        lease = await bench.planted()
        run = bench.executor("local:leaving").log.open(lease)
        assert await finish(run, Ending(RunStatus.INTERRUPTED, answers=0))
        row = await bench.run(lease.id)
        assert row.status is RunStatus.INTERRUPTED
        assert row.due_at is not None
        assert row.due_at.year > 9000


class TestResumed:
    async def test_nobody_is_asked_again_what_they_have_answered(
        self, bench: Bench, first: Executor, other: Executor, gate: Gate, make: Factory
    ) -> None:
        model, behind = Flaky(), bench.resources.providers[gate.slug]
        model.failing.set()
        bench.resources.providers[gate.slug] = lambda name: model if name == "flaky" else behind(name)
        slug = await make.model(bench.member, provider=gate.slug, model="flaky")
        prompt = [{"role": "user", "content": "{{ item }}"}]
        write = {"id": "write", "type": "llm", "config": {"model": "main", "prompt": prompt}}
        body = line(asking("ask"), write, output={"by": "{{ ask.answered_by }}"})
        config = {"items": "{{ fork.parts }}", "graph": body, "concurrency": 1}
        fork = {"id": "fork", "type": "transform", "config": {"values": {"parts": "['a', 'b', 'c']"}}}
        whole = line(
            fork, {"id": "each", "type": "map", "config": config}, output={"by": "{{ each.results }}"}
        )
        async with first.running():
            run = await bench.start(first, PLAIN | {"bindings": {"models": {"main": slug}}} | whole)
            await at_rest(bench, run.id)
            for index in (0, 1):
                await answer(bench, run.id, at=f"each/{index}/ask")
        service = DescendantService(bench.resources.database, bench.tenant, bench.agents(), other)
        async with other.running():
            assert (await ended(bench, run.id)).status is RunStatus.FAILED
            resumed = await service.resume(run.id, Wanted(RunMode.BACKGROUND))
            assert (await asked(bench, resumed)).node_path == "each/2/ask"
            assert [one.node_path for one in await questions(bench, resumed)] == ["each/2/ask"]
            await answer(bench, resumed)
            row = await ended(bench, resumed)
        assert row.output == {"by": [{"by": "ann@example.org"}] * 3}
        events = await bench.events(resumed)
        told = [event.node_path for event in events if event.event.get("name") == "interrupt"]
        assert told == ["each/2/ask"]


class TestTime:
    async def test_that_has_come_is_taken_up_and_counts_as_no_death(
        self, bench: Bench, first: Executor, other: Executor
    ) -> None:
        async with first.running():
            run = await bench.start(first, pausing(0.5))
            await at_rest(bench, run.id)
        async with other.running():
            row = await ended(bench, run.id)
        assert (row.status, row.recoveries, row.fence) == (RunStatus.SUCCEEDED, 0, 2)

    async def test_that_has_not_come_is_left_alone(self, bench: Bench, other: Executor) -> None:
        async with other.running():
            run = await bench.start(other, pausing(3600))
            await at_rest(bench, run.id)
            await asyncio.sleep(0.3)
            assert (await bench.run(run.id)).fence == 1

    async def test_is_the_databases_where_a_process_lags_behind(
        self, bench: Bench, other: Executor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        behind = SystemClock().now_ms
        monkeypatch.setattr(SystemClock, "now_ms", lambda _: behind() - 3_600_000)
        moments = [(datetime.now(UTC) + timedelta(seconds=after)).isoformat() for after in (0.5, 1)]
        body = line({"id": "nap", "type": "wait", "config": {"until": "{{ item }}"}})
        each = {"id": "each", "type": "map", "config": {"items": "{{ split.times }}", "graph": body}}
        split = {"id": "split", "type": "transform", "config": {"values": {"times": str(moments)}}}
        async with other.running():
            run = await bench.start(other, PLAIN | line(split, each))
            row = await ended(bench, run.id)
        assert row.status is RunStatus.SUCCEEDED
        assert row.fence <= 3  # begun, and taken up at most once for each


class TestBesideWork:
    """A model is at work in one branch; the other asks, or waits for a time."""

    async def test_answers_are_taken_up_at_once_and_counted(
        self, bench: Bench, other: Executor, gate: Gate
    ) -> None:
        async with other.running():
            run = await bench.start(other, beside_a_model(gate.slug, asking("ask"), asking("again")))
            await answer(bench, run.id, at="ask")
            await answer(bench, run.id, at="again")
            await done(bench, run.id, "again")
            assert (await bench.run(run.id)).status is RunStatus.RUNNING
            gate.opened.set()
            row = await ended(bench, run.id)
        assert (row.status, row.answers, row.fence) == (RunStatus.SUCCEEDED, 2, 1)
        names = [event.event.get("name") for event in await bench.events(run.id)]
        assert (names.count("interrupt"), names.count("run.suspended")) == (2, 0)

    async def test_answers_are_heard_of(
        self, bench: Bench, gate: Gate, services: Services, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(crew_module, "_LOOK_EVERY_S", 3600)
        listening = bench.executor("local:listening", claims=False, listen_url=services.database_url)
        async with listening.running():
            run = await bench.start(listening, beside_a_model(gate.slug, asking("ask")))
            async with asyncio.timeout(15):
                while not listening.log.watch.heard:
                    await asyncio.sleep(0.02)
            await answer(bench, run.id, at="ask")
            await done(bench, run.id, "ask")
            gate.opened.set()
            await ended(bench, run.id)

    async def test_a_time_is_kept(self, bench: Bench, other: Executor, gate: Gate) -> None:
        nap = {"id": "nap", "type": "wait", "config": {"for_s": 0.3}}
        async with other.running():
            run = await bench.start(other, beside_a_model(gate.slug, nap))
            await done(bench, run.id, "nap")
            assert (await bench.run(run.id)).status is RunStatus.RUNNING
            gate.opened.set()
            assert (await ended(bench, run.id)).status is RunStatus.SUCCEEDED

    async def test_what_was_taken_up_does_not_wake_the_run_that_waits_for_more(
        self, bench: Bench, other: Executor, gate: Gate
    ) -> None:
        async with other.running():
            run = await bench.start(other, beside_a_model(gate.slug, asking("ask"), asking("again")))
            await answer(bench, run.id, at="ask")
            await done(bench, run.id, "ask")
            gate.opened.set()
            await at_rest(bench, run.id)
            await asyncio.sleep(0.3)
            row = await at_rest(bench, run.id)
            assert (row.answers, row.fence) == (1, 1)
            await answer(bench, run.id, at="again")
            row = await ended(bench, run.id)
        assert (row.status, row.answers, row.fence) == (RunStatus.SUCCEEDED, 2, 2)

    async def test_an_answer_that_comes_at_the_last_moment_is_not_overlooked(
        self, bench: Bench, other: Executor, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(crew_module, "_LOOK_EVERY_S", 3600)
        monkeypatch.setattr(RunLog, "hear", lambda _: None)
        async with other.running():
            run = await bench.start(other, beside_a_model(gate.slug, asking("ask")))
            await answer(bench, run.id, at="ask")
            gate.opened.set()
            row = await ended(bench, run.id)
        assert (row.status, row.answers, row.fence) == (RunStatus.SUCCEEDED, 1, 2)
