"""What one token costs on its way from a model through the stored event log to a reader.

Runs with few and with many tokens are measured; the difference is what tokens cost, without the run
around them. The model writes at a fixed pace on both sides, and its timers are in both figures.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import httpx2
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks._paced_server import TOKEN
from benchmarks.children import BenchmarkFailed, data_folder, platform, server
from benchmarks.processes import cpu_s, own_cpu_s, used
from benchmarks.registry import Report, Row, Scale, benchmark
from benchmarks.rounds import Cost, Rounds, take_turns
from benchmarks.run import ASKING, publish

os.environ["LANGSMITH_TRACING"] = "false"

_AIM = 1.5
_PACE_S = 0.02
_ROUNDS = 3
_API, _DATABASE = "API", "PostgreSQL"
_SIZES = ("few", "many")
Write = Callable[[int], Awaitable[None]]
"""Lets the model write so many tokens."""


@benchmark("tokens", floor='LangGraph\'s stream_mode="messages" (v2), read and dropped in the same process')
async def tokens(scale: Scale) -> Report:
    at_once = scale.pick(2, 100, 200)
    counts = scale.pick(5, 20, 100), scale.pick(20, 200, 600)
    graph = _bare_graph()
    with (
        data_folder() as data_dir,
        platform(data_dir) as ours,
        server("benchmarks._paced_server", str(_PACE_S), data_dir=data_dir) as paced,
    ):
        async with paced.client(ours.key) as client:
            await publish(client, "paced", ASKING)
            await asyncio.gather(*(_streamed(client, 1) for _ in range(at_once)))  # everything is loaded
            postgres = ours.postgres

            def clocks() -> Cost:
                return {_API: cpu_s([paced.process]), _DATABASE: cpu_s(postgres)}

            sides = {
                "ours": partial(_used, lambda n: _streamed(client, n), clocks, at_once, counts),
                "floor": partial(
                    _used, lambda n: _bare(graph, n), lambda: {_API: own_cpu_s()}, at_once, counts
                ),
            }
            rounds = await take_turns(sides, _ROUNDS)
    what = f"{at_once} runs at once, {1 / _PACE_S:.0f} tokens per second each"
    return _report(what, rounds, at_once * (counts[1] - counts[0]))


def _report(what: str, rounds: Rounds, more: int) -> Report:
    """`more` tokens were written in the long half of each round."""
    cpu = {side: _per_token(rounds.least(side), more) for side in rounds.costs}
    slopes = Rounds(
        {side: [_per_token(cost, more) for cost in costs] for side, costs in rounds.costs.items()}
    )
    ours, floor = cpu["ours"], cpu["floor"][_API]
    unit = "CPU µs per token"
    rows = [
        Row(
            f"{what}: API process", unit, ours[_API], floor, _AIM, spread=slopes.spread("ours", "floor", _API)
        ),
        Row(
            f"{what}: with PostgreSQL",
            unit,
            ours[_API] + ours[_DATABASE],
            floor,
            spread=slopes.spread("ours", "floor", _API, _DATABASE),
        ),
    ]
    return Report(rows, cpu, unit)


async def _used(write: Write, clocks: Callable[[], Cost], at_once: int, counts: tuple[int, int]) -> Cost:
    """CPU seconds by clock, for the few tokens and for the many."""
    cost: Cost = {}
    for count, size in zip(counts, _SIZES, strict=True):
        before = clocks()
        await asyncio.gather(*(write(count) for _ in range(at_once)))
        cost |= {f"{name} {size}": seconds for name, seconds in used(before, clocks()).items()}
    return cost


def _per_token(cost: Cost, more: int) -> Cost:
    """Microseconds by clock: what the many cost more than the few."""
    few, many = _SIZES
    names = [name.removesuffix(f" {few}") for name in cost if name.endswith(few)]
    return {name: (cost[f"{name} {many}"] - cost[f"{name} {few}"]) * 1e6 / more for name in names}


async def _streamed(client: httpx2.AsyncClient, count: int) -> None:
    body = {"input": {"name": str(count)}, "mode": "stream"}
    answer = await client.post("/api/v1/agents/paced/runs", json=body)
    told = answer.content.count(TOKEN.encode())
    if b"event: RUN_FINISHED" not in answer.content or told < count:
        raise BenchmarkFailed(f"{told} of {count} tokens came, then: {answer.text[-500:]}")


async def _bare(graph: Any, count: int) -> None:
    begin = {"messages": [HumanMessage(str(count))]}
    told = 0
    async for part in graph.astream(begin, stream_mode="messages", version="v2"):
        told += bool(part)
    if told < count:
        raise BenchmarkFailed(f"{told} of {count} tokens came from LangGraph")


class _Paced(BaseChatModel):
    """LangChain's side of `Paced`."""

    @property
    def _llm_type(self) -> str:
        return "paced"

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(TOKEN))])

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **_: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for _number in range(int(messages[-1].content)):
            await asyncio.sleep(_PACE_S)
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=TOKEN))
            if run_manager:
                await run_manager.on_llm_new_token(TOKEN, chunk=chunk)
            yield chunk


def _bare_graph() -> Any:
    model = _Paced()

    async def answer(state: MessagesState) -> MessagesState:
        return {"messages": [await model.ainvoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    return graph.compile()
