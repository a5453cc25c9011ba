"""Replays of runs that did not go smoothly: taken up by other processes, cancelled, replayed only in part."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.db.postgres.models.agents import RunMode, RunStatus
from app.services.descendant_service import DescendantService, Wanted
from app.services.runs.executor import Executor
from app.services.runs.logged_event import LoggedEvent
from tests.counting_model import Counting, Flaky
from tests.factories import Factory, Gate
from tests.services.runs.conftest import Bench
from tests.services.runs.test_recovery import (  # noqa: F401  (fixtures)
    counting,
    ended,
    expire,
    frozen,
    other,
    two_calls,
)
from tests.services.runs.test_suspended_runs import PLAIN, answer, asked, at_rest, line, pausing

pytestmark = pytest.mark.asyncio(loop_scope="session")

_PASSING = (
    "runId",
    "threadId",
    "messageId",
    "message_id",
    "parentMessageId",
    "interrupt_id",
    "duration_ms",
    "until",
)


def lasting(event: LoggedEvent) -> Any:
    body = event.event
    parts = [body, body["value"]] if isinstance(body.get("value"), dict) else [body]
    kept = [{name: item for name, item in part.items() if name not in _PASSING} for part in parts]
    return event.seq, event.node_path, kept[-1], body["type"]


async def replay_of(bench: Bench, executor: Executor, run_id: UUID) -> UUID:
    service = DescendantService(bench.resources.database, bench.tenant, bench.agents(), executor)
    return await service.replay(run_id, Wanted(RunMode.BACKGROUND))


async def check(bench: Bench, executor: Executor, run_id: UUID) -> None:
    """A replay comes to the same, event by event."""
    replay = await replay_of(bench, executor, run_id)
    row, then = await ended(bench, replay), await bench.run(run_id)
    assert (row.status, row.output, row.error) == (then.status, then.output, then.error)
    told = [lasting(event) for event in await bench.events(replay)]
    assert told == [lasting(event) for event in await bench.events(run_id)]


def asking_or_writing(model: str) -> dict[str, Any]:
    """For the first item a person is asked, for the second a model, which fails at first; then both again."""
    prompt = [{"role": "user", "content": "Well?"}]
    ways = [{"handle": "person", "when": "{{ item }} == 'a'"}]
    body = {
        "nodes": [
            {"id": "start", "type": "start"},
            {"id": "which", "type": "condition", "config": {"branches": ways}},
            {"id": "ask", "type": "human", "config": {"message": "Well?"}},
            {"id": "write", "type": "llm", "config": {"model": "main", "prompt": prompt}},
            {"id": "done", "type": "end", "config": {"output": {}}},
        ],
        "edges": [
            {"source": "start", "target": "which"},
            {"source": "which", "handle": "person", "target": "ask"},
            {"source": "which", "handle": "else", "target": "write"},
            {"source": "ask", "target": "done"},
            {"source": "write", "target": "done"},
        ],
    }
    items = {"id": "items", "type": "transform", "config": {"values": {"all": "['a', 'b']"}}}
    config = {"items": "{{ items.all }}", "graph": body}
    each = {"id": "each", "type": "map", "config": config, "retry": {"max_attempts": 2, "initial_s": 0}}
    return PLAIN | {"bindings": {"models": {"main": model}}} | line(items, each)


class TestReplay:
    async def test_of_a_map_that_was_tried_again_while_somebody_was_asked(
        self,
        bench: Bench,
        other: Executor,  # noqa: F811
        gate: Gate,
        make: Factory,
    ) -> None:
        model, behind = Flaky(), bench.resources.providers[gate.slug]
        bench.resources.providers[gate.slug] = lambda name: model if name == "flaky" else behind(name)
        slug = await make.model(bench.member, provider=gate.slug, model="flaky")
        async with other.running():
            run = await bench.start(other, asking_or_writing(slug))
            await asked(bench, run.id)
            model.failing.set()
            await at_rest(bench, run.id)
            await answer(bench, run.id)
            assert (await ended(bench, run.id)).status is RunStatus.SUCCEEDED
            told = [(event.node_path, event.event.get("name")) for event in await bench.events(run.id)]
            assert told.count(("each/0/ask", "node.started")) == 2
            await check(bench, other, run.id)

    async def test_of_a_run_whose_process_died_tells_of_that(
        self,
        bench: Bench,
        frozen: Executor,  # noqa: F811
        other: Executor,  # noqa: F811
        gate: Gate,
        make: Factory,
        counting: Counting,  # noqa: F811
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        async with frozen.running():
            run = await bench.start(frozen, two_calls(gate.slug, slug))
            await gate.entered.wait()
            await asyncio.sleep(0.2)
            await expire(bench, run.id)
            gate.opened.set()
            async with other.running():
                await ended(bench, run.id)
                await asyncio.gather(*frozen.tasks.values())
                names = [event.event.get("name") for event in await bench.events(run.id)]
                assert {"run.continued", "message.discarded"} <= set(names)
                await check(bench, other, run.id)

    async def test_of_a_run_that_was_cancelled_amid_an_answer_is_cancelled(
        self,
        bench: Bench,
        other: Executor,  # noqa: F811
        gate: Gate,
        make: Factory,
        counting: Counting,  # noqa: F811
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        async with other.running():
            run = await bench.start(other, two_calls(gate.slug, slug))
            await gate.entered.wait()
            await bench.runs(other).cancel(run.id)
            row = await ended(bench, run.id)
            assert row.status is RunStatus.CANCELLED
            await check(bench, other, run.id)

    async def test_of_a_run_that_waited_does_not_wait(
        self,
        bench: Bench,
        other: Executor,  # noqa: F811
    ) -> None:
        async with other.running():
            run = await bench.start(other, pausing(0.3))
            await at_rest(bench, run.id)
            await ended(bench, run.id)
            await check(bench, other, run.id)

    async def test_uses_no_tokens(
        self,
        bench: Bench,
        other: Executor,  # noqa: F811
        gate: Gate,
        make: Factory,
        counting: Counting,  # noqa: F811
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        gate.opened.set()
        async with other.running():
            run = await bench.start(other, two_calls(gate.slug, slug))
            row = await ended(bench, run.id)
            replay = await ended(bench, await replay_of(bench, other, run.id))
        assert row.usage
        assert replay.usage
        assert (row.usage["input_tokens"], replay.usage["input_tokens"]) == (2, 0)

    async def test_that_another_process_goes_on_with_tells_nothing_twice(
        self,
        bench: Bench,
        other: Executor,  # noqa: F811
        gate: Gate,
        make: Factory,
        counting: Counting,  # noqa: F811
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        gate.opened.set()
        async with other.running():
            run = await bench.start(other, two_calls(gate.slug, slug))
            await ended(bench, run.id)
        first = replace(other, claims=False)
        replay = await replay_of(bench, first, run.id)
        await partly_told(bench, replay, run.id, events=4)
        async with other.running():
            row = await ended(bench, replay)
        assert (row.status, row.fence) == (RunStatus.SUCCEEDED, 2)
        told = [lasting(event) for event in await bench.events(replay)]
        assert told == [lasting(event) for event in await bench.events(run.id)]


_TELL = text("""
    INSERT INTO agent_run_events (org_id, run_id, seq, ts, node_path, type, event)
    SELECT org_id, :replay, seq, ts, node_path, type, event FROM agent_run_events
    WHERE run_id = :run AND seq <= :events
""")
_DIE = text("""
    UPDATE agent_runs SET status = 'running', fence = 1, last_seq = :events, lease_owner = 'local:gone',
        lease_until = created_at
    WHERE id = :replay
""")


async def partly_told(bench: Bench, replay: UUID, run_id: UUID, *, events: int) -> None:
    """As if a process had told so many events of the replay, and then died."""
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        await session.execute(_TELL, {"replay": replay, "run": run_id, "events": events})
        await session.execute(_DIE, {"replay": replay, "events": events})
