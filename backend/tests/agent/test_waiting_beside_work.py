"""What waits for a person or a time goes on as soon as it can, though other parts of the run still work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.agent.core.interrupts import Suspended
from app.agent.graph.ports import RunFailed, RunResult
from tests.agent.agent_calls import document, wants
from tests.agent.documents import end, graph, llm, node, text
from tests.agent.doubles import Bench, Script, SteppedClock, says
from tests.agent.interrupts import Inbox
from tests.agent.test_inner_graphs import ITEMS, Team, calling, inner, line
from tests.agent.test_tool_node import SUNNY, Listed, Shelf

ASK = node("ask", "human", {"message": "Well?"})
BESIDE = ["start > write", "write > done"]
PROMPT = [{"role": "user", "content": "Hello."}]


class Busy:
    """A run whose model answers when `go` is set. `finished`: the nodes that have ended, as they did."""

    def __init__(self, whole: Mapping[str, Any], *scripts: Script, inputs: Any = None, **ports: Any) -> None:
        self.go = asyncio.Event()
        self.clock = SteppedClock()
        self.inbox = Inbox(self.clock)
        scripts = scripts or ([self.go, *says("Hello.")],)
        self.bench = Bench(whole, *scripts, clock=self.clock, interrupts=self.inbox, **ports)
        self.inbox.log = self.bench.log
        self.inputs = inputs or {"question": "Why?"}

    @property
    def finished(self) -> list[str]:
        entries = self.bench.log.entries
        return [path for path, entry in entries if getattr(entry, "name", "") == "node.finished"]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[asyncio.Task[RunResult]]:
        """The run, once all is under way that can be."""
        task = asyncio.create_task(self.bench.given(self.inputs))
        try:
            await self.until(lambda: bool(self.inbox.open_ones))
            yield task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def until(self, what: Any) -> None:
        async with asyncio.timeout(5):
            while not what():
                await asyncio.sleep(0)

    async def until_finished(self, path: str) -> None:
        await self.until(lambda: path in self.finished)


def beside(*nodes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """`nodes` in a line beside the node `write`; `done` waits for both."""
    edges = [*line([*nodes, {"id": "done"}]), *BESIDE]
    return graph(*nodes, llm("write"), end(), edges=edges, **more)


async def test_an_answer() -> None:
    run = Busy(beside(ASK, text("after", "{{ ask.answered_by }}")))
    async with run.running() as task:
        run.inbox.answer("ask")
        await run.until_finished("after")
        assert "write" not in run.finished
        run.go.set()
        await task
    names = run.bench.log.names
    assert [name for name in names if name.endswith(" ask")] == [
        "node.started ask", "interrupt ask", "node.finished ask",
    ]  # fmt: skip
    assert not any(name.startswith("run.") for name in names)


async def test_a_time() -> None:
    run = Busy(beside(node("nap", "wait", {"for_s": 60}), text("after", "{{ nap.waited_until }}")))
    async with run.running() as task:
        await run.clock.sleep(60)
        await run.until_finished("after")
        assert "write" not in run.finished
        run.go.set()
        await task


async def test_one_after_the_other() -> None:
    run = Busy(beside(ASK, node("again", "human", {"message": "Sure?"}), text("after", "ok")))
    async with run.running() as task:
        run.inbox.answer("ask")
        await run.until(lambda: [one.node_path for one in run.inbox.open_ones] == ["again"])
        run.inbox.answer("again")
        await run.until_finished("after")
        assert not task.done()
        assert "write" not in run.finished


async def test_what_is_not_answered_when_the_rest_is_done_suspends_the_run() -> None:
    run = Busy(beside(ASK, node("nap", "wait", {"for_s": 60})))
    async with run.running() as task:
        run.inbox.answer("ask")
        await run.until_finished("ask")
        run.go.set()
        with pytest.raises(Suspended) as waiting:
            await task
    assert waiting.value.due_ms == run.clock.now_ms() + 60_000
    assert not waiting.value.by_people
    assert {one.id for one in run.inbox.open_ones} == waiting.value.ids
    assert run.bench.log.custom("run.suspended") == [{"status": "waiting", "until": "2023-11-14T22:14:20Z"}]


async def test_a_failure_takes_what_waits_along() -> None:
    run = Busy(beside(ASK))
    run.bench.model._scripts = ([run.go, ValueError("broken")],)
    async with run.running() as task:
        run.go.set()
        with pytest.raises(RunFailed):
            await task


async def test_inside_of_a_map() -> None:
    body = inner(
        node("which", "condition", {"branches": [{"handle": "person", "when": "{{ item }} == 'ann'"}]}),
        ASK, text("after", "{{ item }}"), llm("write", prompt=PROMPT), end(),
        edges=["start > which", "which.person > ask", "ask > after", "after > done",
               "which.else > write", "write > done"],
    )  # fmt: skip
    each = node("each", "map", {"items": "{{ inputs.items }}", "graph": body})
    whole = graph(each, end(), edges=line([each, end()]), inputs=ITEMS)
    run = Busy(whole, inputs={"items": ["ann", "robot", "ann"]})
    async with run.running() as task:
        await run.until(lambda: len(run.inbox.open_ones) == 2)
        for index in (2, 0):
            run.inbox.answer(f"each/{index}/ask")
            await run.until_finished(f"each/{index}/after")
        assert "each/1/write" not in run.finished
        run.go.set()
        await task
    assert run.finished.count("each/0/which") == 1


async def test_inside_of_a_subagent() -> None:
    helper = graph(ASK, end(answer="ok"), edges=line([ASK, end()]), interface={"answer": "answer"})
    called = calling()["nodes"][1]
    whole = beside(called, bindings=calling()["bindings"])
    run = Busy(whole, agents=Team(helper=helper))
    async with run.running() as task:
        run.inbox.answer(f"{called['id']}/ask")
        await run.until_finished(called["id"])
        assert "write" not in run.finished
        run.go.set()
        await task
    assert [name for name in run.bench.log.names if name == f"node.started {called['id']}"] != []


class TestAgent:
    """Nodes of the type `agent`: a person agrees to a call while another part of the run works."""

    async def test_goes_on_and_counts_all_that_it_used(self) -> None:
        made = document(bindings={"tools": {"sky": "sky"}}, tools=["sky"], approval="all")
        (agent,) = [one for one in made["nodes"] if one["type"] == "agent"]
        made["nodes"].append(node("rest", "nap", {"seconds": 0.3}))
        made["edges"] += graph(edges=["start > rest", "rest > done"])["edges"]
        scripts = wants(("weather", {"city": "Rome"})), says("Sunny.")
        run = Busy(made, *scripts, tools=Shelf(sky=[Listed([SUNNY])]))
        async with run.running() as task:
            (asked,) = run.inbox.open_ones
            run.inbox.answer_one(asked.id, "approve")
            await run.until_finished(agent["id"])
            assert "rest" not in run.finished
            await task
        steps = [step for step in run.bench.log.steps if step.usage]
        (whole,) = [step.usage for step in steps if not step.call]
        turns = [step.usage for step in steps if step.call]
        assert len(turns) == 2
        assert whole["input_tokens"] == sum(turn["input_tokens"] for turn in turns)
