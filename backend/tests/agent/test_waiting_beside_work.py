"""What waits for a person or a time goes on as soon as it can, though other parts of the run still work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
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
        run.inbox.hear()
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


async def test_what_was_taken_over_from_another_run_is_told_once() -> None:
    helper = graph(
        llm("say"), ASK, end(answer="{{ say.text }}"), edges=line([llm("say"), ASK, end()]),
        bindings={"models": {"main": "default-chat"}}, interface={"message": "question", "answer": "answer"},
    )  # fmt: skip
    called = calling()["nodes"][1]
    more = {"bindings": calling()["bindings"], "interface": {"message": "question", "answer": "answer"}}
    nap = node("nap", "nap", {"seconds": 0.3})
    edges = [f"start > {called['id']}", f"{called['id']} > done", "start > nap", "nap > done"]
    whole = graph(called, nap, end(answer=f"{{{{ {called['id']}.answer }}}}"), edges=edges, **more)
    first = Busy(whole, says("Hello."), agents=Team(helper=helper))
    async with first.running():
        steps = [step for step in first.bench.log.steps if step.status == "succeeded"]
    again = Busy(whole, says("Never."), agents=Team(helper=helper))
    again.bench.log.known = {step.key: replace(step, source_run_id="r-0") for step in steps}
    async with again.running() as task:
        again.inbox.answer(f"{called['id']}/ask")
        assert (await task).output == {"answer": "Hello."}
    assert (again.bench.model.requests, again.bench.log.text) == ([], "Hello.")
    assert again.finished.count(f"{called['id']}/say") == 1


class TestLookout:
    async def test_what_cannot_be_looked_at_costs_no_work_anything(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def away(ids: Any) -> Any:
            looks.append(len(ids))
            raise ConnectionResetError("away")

        looks: list[int] = []
        run = Busy(beside(ASK, text("after", "ok")))
        with monkeypatch.context() as outage:
            outage.setattr(run.inbox, "over", away)
            async with asyncio.timeout(10), run.running() as task:
                await run.until(lambda: bool(looks))
                run.inbox.answer("ask")
                await run.until(lambda: len(looks) > 1)
                outage.undo()
                run.inbox.hear()
                await run.until_finished("after")
                run.go.set()
                await task

    async def test_a_look_that_hangs_holds_up_no_cancellation(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async def hanging(ids: Any) -> Any:
            looking.set()
            await asyncio.Event().wait()

        looking = asyncio.Event()
        run = Busy(beside(ASK))
        monkeypatch.setattr(run.inbox, "over", hanging)
        async with asyncio.timeout(10), run.running() as task:
            await looking.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert run.bench.model.closed == 1

    async def test_what_is_answered_goes_before_what_has_not_begun(self) -> None:
        body = inner(
            node("which", "condition", {"branches": [{"handle": "person", "when": "{{ item }} == 'ann'"}]}),
            ASK, node("nap", "nap", {"seconds": 0.02}), end(),
            edges=["start > which", "which.person > ask", "ask > done", "which.else > nap", "nap > done"],
        )  # fmt: skip
        each = node("each", "map", {"items": "{{ inputs.items }}", "graph": body, "concurrency": 2})
        whole = graph(each, end(), edges=line([each, end()]), inputs=ITEMS)
        run = Busy(whole, inputs={"items": ["ann", *["robot"] * 12]})
        async with run.running() as task:
            run.inbox.answer("each/0/ask")
            await task
        ended = [path for path in run.finished if path.endswith("/done")]
        assert ended.index("each/0/done") < 6

    async def test_is_not_asked_more_often_where_many_wait(self) -> None:
        each = node("each", "map", {"items": "{{ inputs.items }}", "graph": inner(ASK, end())})
        edges = ["start > each", "each > done", "start > nap", "nap > done"]
        whole = graph(each, node("nap", "nap", {"seconds": 0.3}), end(), edges=edges, inputs=ITEMS)
        run = Busy(whole, inputs={"items": list(range(200))})
        async with run.running() as task:
            with pytest.raises(Suspended):
                await task
        assert len(run.inbox.looks) < 5
        waiting = [step for step in run.bench.log.steps if step.status == "waiting"]
        assert len(waiting) == len({step.key for step in waiting}) == 201


async def test_reads_what_it_read_when_it_began() -> None:
    ask = node("ask", "human", {"message": "Pay {{ item }}?"})
    body = inner(ask, end(paid="{{ item }}"))
    nodes = [
        text("fast", "f"), llm("slow"), node("nap", "nap", {"seconds": 0.3}),
        node("each", "map", {"items": "{{ late.xs ?? soon.xs }}", "graph": body}, join="any"),
        node("soon", "transform", {"values": {"xs": "[{{ fast.text }}]"}}),
        node("late", "transform", {"values": {"xs": "[{{ slow.text }}]"}}),
        end(results="{{ each.results }}"),
    ]  # fmt: skip
    edges = [
        "start > fast", "fast > soon", "soon > each", "start > slow", "slow > late", "late > each",
        "each > done", "start > nap", "nap > done",
    ]  # fmt: skip
    run = Busy(graph(*nodes, edges=edges))
    async with run.running() as task:
        run.go.set()
        await run.until_finished("late")
        run.inbox.answer("each/0/ask")
        assert (await task).output["results"] == [{"paid": "f"}]


async def test_an_item_that_fails_takes_its_questions_back() -> None:
    body = inner(
        ASK, node("nap", "nap", {"fail": True}), end(),
        edges=["start > ask", "start > nap", "ask > done", "nap > done"],
    )  # fmt: skip
    config = {"items": "{{ inputs.items }}", "graph": body, "on_item_error": "collect"}
    each = node("each", "map", config)
    run = Busy(graph(each, end(), edges=line([each, end()]), inputs=ITEMS), inputs={"items": [1]})
    await run.bench.given(run.inputs)
    assert run.inbox.withdrawn == ["each/0/ask"]
    assert run.inbox.open_ones == []
