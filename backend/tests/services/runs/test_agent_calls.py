"""Runs of `agent` nodes whose process dies amid the loop: no call that has ended is made again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any, ClassVar
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import select

from app.agent.core.interfaces import Finished, ModelError, TextDelta, ToolCallDelta, Usage
from app.agent.tools.kinds.http import HttpTool
from app.core.egress import Egress
from app.core.ids import new_id
from app.db.postgres.models.agents import AgentRunStep, RunMode, RunStatus
from app.db.postgres.models.registry import ToolApproval
from app.db.session import Tenant
from app.services.descendant_service import Wanted
from app.services.interrupt_service import Answer, InterruptService
from app.services.runs.executor import Executor
from app.services.tool_resolver import ProjectTools
from app.services.tool_service import ToolService
from tests.agent.agent_calls import document, wants
from tests.agent.doubles import Script, ScriptedModel, says
from tests.core.peers import Peer, in_turn, ok, peer, way_out
from tests.core.peers import says as replies
from tests.factories import Factory, Gate
from tests.services.runs.conftest import Bench
from tests.services.runs.test_descendants import service
from tests.services.runs.test_http_runs import door
from tests.services.runs.test_recovery import ended, expire
from tests.services.runs.test_replays import check
from tests.services.runs.test_suspended_runs import ANN, at_rest, questions

pytestmark = pytest.mark.asyncio(loop_scope="session")

PARAMETERS = {"type": "object", "properties": {"to": {"type": "string"}}, "required": ["to"]}
FOREVER = 600.0
PRICES = {"input_per_million": "500000", "output_per_million": "1000000", "currency": "USD"}


class World:
    """An agent with one tool that writes; `there` is whom that calls."""

    def __init__(self, bench: Bench, make: Factory, gate: Gate, there: Peer, egress: Egress) -> None:
        self.bench, self.make, self.gate = bench, make, gate
        self.there, self.door = there, door(bench, egress)
        self.tool = f"send-{new_id().hex[-12:]}"

    def send(self, to: str) -> tuple[str, dict[str, str]]:
        """A call that the model makes."""
        return self.tool, {"to": to}

    def process(self, name: str, **changes: Any) -> Executor:
        """As another machine would have it, with a way out to `there`."""

        def tools(tenant: Tenant) -> ProjectTools:
            made = self.bench.resources.tools(tenant)
            return replace(made, ports=replace(made.ports, http=self.door(tenant)))

        return self.bench.executor(f"local:{name}", tools=tools, **changes)

    async def graph(
        self,
        *scripts: Script,
        approval: ToolApproval = ToolApproval.NEVER,
        prices: dict[str, str] | None = None,
        **config: Any,
    ) -> tuple[ScriptedModel, dict[str, Any]]:
        model, providers = ScriptedModel(*scripts), self.bench.resources.providers
        providers[self.gate.slug] = lambda _: model
        priced = {"prices": prices} if prices else {}
        slug = await self.make.model(self.bench.member, provider=self.gate.slug, model="acting", **priced)
        request = {"url": self.there.url, "method": "POST", "body": {"json": {"to": "{{ arguments.to }}"}}}
        tool = HttpTool.model_validate({"request": request, "parameters": PARAMETERS})
        ports = self.bench.resources.tools(self.bench.tenant).ports
        service = ToolService(self.bench.resources.database, self.bench.tenant, ports, lambda _: None)
        await service.create(self.tool, tool, approval=approval)
        bindings = {"tools": {"mail": self.tool}, "models": {"main": slug}}
        return model, document(bindings=bindings, tools=["mail"], **config)

    async def steps(self, run_id: UUID) -> list[AgentRunStep]:
        """Of the calls, in their order."""
        statement = select(AgentRunStep).where(
            AgentRunStep.org_id == self.bench.tenant.org_id,
            AgentRunStep.run_id == run_id,
            AgentRunStep.call > 0,
        )
        async with self.bench.resources.database.unit_of_work(self.bench.tenant) as session:
            return list((await session.execute(statement.order_by(AgentRunStep.call))).scalars())

    async def until(self, what: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not what():
                await asyncio.sleep(0.01)


@pytest_asyncio.fixture(loop_scope="session")
async def world(bench: Bench, make: Factory, gate: Gate) -> AsyncIterator[World]:
    async with peer(replies(ok(b"sent"))) as there, way_out(there.authority) as egress:
        yield World(bench, make, gate, there, egress)


def keys(world: World) -> list[str]:
    return [request.headers["idempotency-key"] for request in world.there.requests]


class TestKilled:
    """The first process falls silent, as if by kill -9; another one goes on."""

    async def test_amid_an_answer_with_half_a_tool_call(self, world: World, bench: Bench) -> None:
        half = [TextDelta("And "), ToolCallDelta("call_0", world.tool, '{"to": '), FOREVER]
        model, graph = await world.graph(
            wants(world.send("Ada"), text="First."), half, wants(world.send("Bob")), says("Sent.")
        )
        frozen = world.process("frozen", lease_s=600, claims=False, grace_s=0)
        async with frozen.running():
            run = await bench.start(frozen, graph)
            await world.until(lambda: len(model.requests) == 2)
            await asyncio.sleep(0.2)
            await expire(bench, run.id)
            other = world.process("other", sweep_interval_s=0.1)
            async with other.running():
                row = await ended(bench, run.id)
                await check(bench, other, run.id)
        assert (row.status, row.output and row.output["text"]) == (RunStatus.SUCCEEDED, "Sent.")
        assert [json.loads(request.body) for request in world.there.requests] == [
            {"to": "Ada"},
            {"to": "Bob"},
        ]
        assert [step.node_type for step in await world.steps(run.id)] == [
            "model",
            "tool",
            "model",
            "tool",
            "model",
        ]
        told = [event.event for event in await bench.events(run.id)]
        started = [event for event in told if event["type"] == "TOOL_CALL_START"]
        ends = [event["toolCallId"] for event in told if event["type"] == "TOOL_CALL_END"]
        assert sorted(ends) == sorted(event["toolCallId"] for event in started)
        (discarded,) = [event["value"] for event in told if event.get("name") == "message.discarded"]
        assert [event["parentMessageId"] for event in started].count(discarded["message_id"]) == 1
        assert row.usage == {
            "input_tokens": 23, "output_tokens": 12,
            "by_model": {"scripted": {"input_tokens": 23, "output_tokens": 12}},
        }  # fmt: skip

    async def test_amid_a_tool_call_which_is_repeated_with_the_same_key(
        self, world: World, bench: Bench
    ) -> None:
        over = asyncio.Event()

        async def hangs(*_: Any) -> None:
            await over.wait()

        world.there.script = in_turn(hangs, replies(ok(b"sent")))
        model, graph = await world.graph(wants(world.send("Ada")), says("Sent."))
        frozen = world.process("frozen", lease_s=600, claims=False, grace_s=0)
        async with frozen.running():
            run = await bench.start(frozen, graph)
            await world.until(lambda: len(world.there.requests) == 1)
            await expire(bench, run.id)
            async with world.process("other", sweep_interval_s=0.1).running():
                row = await ended(bench, run.id)
        over.set()
        assert row.status is RunStatus.SUCCEEDED
        assert (len(keys(world)), len(set(keys(world))), len(model.requests)) == (2, 1, 2)


class TestApproval:
    async def test_is_given_to_another_process_which_repeats_nothing(
        self, world: World, bench: Bench
    ) -> None:
        model, graph = await world.graph(
            wants(world.send("Ada"), world.send("Bob")), says("Sent."), approval=ToolApproval.WRITES
        )
        first = world.process("first", claims=False)
        async with first.running():
            run = await bench.start(first, graph)
            await at_rest(bench, run.id)
        asked = await questions(bench, run.id)
        assert sorted(one.prefill["arguments"]["to"] for one in asked if one.prefill) == ["Ada", "Bob"]
        assert world.there.requests == []
        inbox = InterruptService(bench.resources.database, bench.tenant, lambda _: None)
        other = world.process("other", sweep_interval_s=0.1)
        async with other.running():
            for one in asked:
                to = one.prefill["arguments"]["to"] if one.prefill else ""
                choice = Answer("approve") if to == "Ada" else Answer("reject", {"reason": "not Bob"})
                await inbox.answer(run.id, one.id, choice, ANN)
            row = await ended(bench, run.id)
            await check(bench, other, run.id)
        assert row.status is RunStatus.SUCCEEDED
        assert row.output
        assert [call["approved"] for call in row.output["tool_calls"]] == [True, False]
        assert [json.loads(request.body) for request in world.there.requests] == [{"to": "Ada"}]
        assert len(model.requests) == 2
        assert "not Bob" in model.requests[1].messages[-1].content


class TestPriced:
    """Tokens have prices: what a run costs counts once, whichever process goes on with it."""

    async def test_a_call_that_another_process_recalls_is_paid_once(self, world: World, bench: Bench) -> None:
        _, graph = await world.graph(wants(world.send("Ada")), [FOREVER], says("Sent."), prices=PRICES)
        frozen = world.process("frozen", lease_s=600, claims=False, grace_s=0)
        async with frozen.running():
            run = await bench.start(frozen, graph)
            await world.until(lambda: len(world.there.requests) == 1)
            await asyncio.sleep(0.2)
            await expire(bench, run.id)
            other = world.process("other", sweep_interval_s=0.1)
            async with other.running():
                row = await ended(bench, run.id)
                await check(bench, other, run.id)
        assert (row.status, row.error) == (RunStatus.SUCCEEDED, None)
        assert row.usage == {
            "input_tokens": 13, "output_tokens": 7, "cost": {"USD": "13.5"},
            "by_model": {"scripted": {"input_tokens": 13, "output_tokens": 7, "cost": {"USD": "13.5"}}},
        }  # fmt: skip
        assert row.output
        assert row.output["usage"] == {"input_tokens": 13, "output_tokens": 7}
        assert [step.usage and step.usage["cost"] for step in await world.steps(run.id)] == [
            {"USD": "10"}, None, {"USD": "3.5"},
        ]  # fmt: skip


class TestUnusable:
    """The last answer of the model is withheld: the run fails, and what that used is not forgotten."""

    WITHHELD: ClassVar[Script] = [Finished("content_filter", Usage(7, 0))]

    async def test_a_replay_tells_the_same(self, world: World, bench: Bench) -> None:
        _, graph = await world.graph(wants(world.send("Ada")), self.WITHHELD)
        executor = world.process("replaying", sweep_interval_s=0.1)
        async with executor.running():
            run = await bench.start(executor, graph)
            row = await ended(bench, run.id)
            await check(bench, executor, run.id)
        assert row.error
        assert (row.error["code"], row.usage and row.usage["input_tokens"]) == ("content_filter", 17)
        steps = [(step.node_type, step.status, step.output is None) for step in await world.steps(run.id)]
        assert steps[-1] == ("model", "failed", True)

    async def test_a_resumed_run_asks_again(self, world: World, bench: Bench) -> None:
        model, graph = await world.graph(wants(world.send("Ada")), self.WITHHELD, says("Sent."))
        executor = world.process("resuming", sweep_interval_s=0.1)
        async with executor.running():
            run = await bench.start(executor, graph)
            await ended(bench, run.id)
            again = await service(bench, executor).resume(run.id, Wanted(RunMode.BACKGROUND))
            row = await ended(bench, again)
        assert (row.status, row.output and row.output["text"]) == (RunStatus.SUCCEEDED, "Sent.")
        assert (len(world.there.requests), len(model.requests)) == (1, 3)
        assert row.usage
        assert row.usage["input_tokens"] == 3


class TestArguments:
    async def test_are_joined_before_they_are_stored(self, world: World, bench: Bench) -> None:
        pieces = [ToolCallDelta("call_0", world.tool, piece) for piece in '{"to": "Ada"}']
        whole = wants(world.send("Ada"), pieces=False)
        _, graph = await world.graph([*pieces, *whole], says("Sent."))
        executor = world.process("only")
        async with executor.running():
            run = await bench.start(executor, graph)
            await executor.finished(run.id, timeout_s=20)
        told = [e.event["delta"] for e in await bench.events(run.id) if e.type == "TOOL_CALL_ARGS"]
        assert "".join(told) == '{"to": "Ada"}'
        assert len(told) < len(pieces)


class TestMadeOfAnother:
    async def test_a_resumed_run_calls_no_tool_again(self, world: World, bench: Bench) -> None:
        broken = [ModelError("server_error", "gone")]
        model, graph = await world.graph(wants(world.send("Ada")), broken, says("Sent."))
        executor = world.process("resuming", sweep_interval_s=0.1)
        async with executor.running():
            run = await bench.start(executor, graph)
            assert (await ended(bench, run.id)).status is RunStatus.FAILED
            again = await service(bench, executor).resume(run.id, Wanted(RunMode.BACKGROUND))
            row = await ended(bench, again)
        assert (row.status, row.output and row.output["text"]) == (RunStatus.SUCCEEDED, "Sent.")
        assert (len(world.there.requests), len(model.requests)) == (1, 3)
        assert row.usage
        assert (row.usage["input_tokens"], row.usage["output_tokens"]) == (3, 2)
        kinds = [event.type for event in await bench.events(again)]
        assert (kinds.count("TOOL_CALL_START"), kinds.count("TOOL_CALL_RESULT")) == (1, 1)

    async def test_a_replay_calls_nobody_and_tells_the_same(self, world: World, bench: Bench) -> None:
        model, graph = await world.graph(wants(world.send("Ada"), text="First."), says("Sent."))
        executor = world.process("replaying", sweep_interval_s=0.1)
        async with executor.running():
            run = await bench.start(executor, graph)
            assert (await ended(bench, run.id)).status is RunStatus.SUCCEEDED
            await check(bench, executor, run.id)
        assert (len(world.there.requests), len(model.requests)) == (1, 2)
