"""Cancelling a run: prompt, silent, and nothing left behind."""

from __future__ import annotations

import asyncio
import time

import pytest

from app.agent.core.interfaces import Finished, ModelError, TextDelta
from app.agent.graph.ports import SystemClock
from tests.agent.documents import ANSWER, end, graph, llm, node
from tests.agent.doubles import Bench, Log, Script

ENDLESS: Script = (TextDelta("Once"), 60.0, Finished())


def endless(script: Script = ENDLESS) -> Bench:
    document = graph(
        llm("write", timeout_s=60, retry={}, on_error={"default": {"text": ""}}),
        end(answer="{{ write.text }}"),
        edges=["start > write", "write > done"],
        **ANSWER,
    )
    return Bench(document, script, clock=SystemClock())


async def cancelled(bench: Bench, *, after: str) -> float:
    """Cancels the run once `after` was emitted; seconds until it was over."""
    run = asyncio.create_task(bench.run())
    while after not in bench.log.names:
        await asyncio.sleep(0.01)
    begun = time.perf_counter()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    return time.perf_counter() - begun


class TestCancel:
    async def test_is_prompt_and_closes_the_model_s_stream(self) -> None:
        bench = endless()
        assert await cancelled(bench, after="TEXT_MESSAGE_CONTENT") < 5
        assert bench.model.closed == 1

    async def test_emits_nothing_more(self) -> None:
        bench = endless()
        await cancelled(bench, after="TEXT_MESSAGE_CONTENT")
        assert bench.log.names[-1] == "TEXT_MESSAGE_CONTENT"
        assert bench.log.steps == []

    async def test_leaves_no_task_behind(self) -> None:
        bench = endless()
        await cancelled(bench, after="TEXT_MESSAGE_CONTENT")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_works_between_attempts(self) -> None:
        document = graph(
            llm("write", retry={"initial_s": 60}), end(), edges=["start > write", "write > done"]
        )
        bench = Bench(document, [ModelError("timeout", "too slow")], clock=SystemClock())
        assert await cancelled(bench, after="retry write") < 5
        assert len(bench.model.requests) == 1

    async def test_stops_parallel_branches_too(self) -> None:
        naps = [node(f"n{i}", "nap", {"seconds": 60}) for i in range(5)]
        edges = [f"start > n{i}" for i in range(5)] + [f"n{i} > done" for i in range(5)]
        await cancelled(Bench(graph(*naps, end(), edges=edges)), after="node.started n4")
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_of_one_run_leaves_others_of_the_same_agent_alone(self) -> None:
        bench = endless([TextDelta("Once"), 0.3, Finished()])
        other = Log()
        ports = bench.ports
        second = asyncio.create_task(
            bench.given(
                {"question": "x"}, "2", "2", ports=type(ports)(ports.models, ports.retriever, other, other)
            )
        )
        await cancelled(bench, after="TEXT_MESSAGE_CONTENT")
        assert (await second).output == {"answer": "Once"}
