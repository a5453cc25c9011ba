"""What one token costs on its way from a model through the stored event log to a reader.

Runs with few and with many tokens are measured; the difference is what tokens cost, without the run
around them. The model writes at a fixed pace on both sides, and its timers are in both figures.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langgraph.graph import START, MessagesState, StateGraph

from benchmarks._paced_server import TOKEN
from benchmarks.children import BenchmarkFailed, data_folder, platform, server
from benchmarks.processes import cpu_s, own_cpu_s
from benchmarks.registry import Report, Row, Scale, benchmark
from benchmarks.run import ASKING, publish

os.environ["LANGSMITH_TRACING"] = "false"

_AIM = 1.5
_PACE_S = 0.02
_ROUNDS = 2
Write = Callable[[int], Awaitable[None]]
"""Lets the model write so many tokens."""


@benchmark("tokens", floor='LangGraph\'s stream_mode="messages" (v2), read and dropped in the same process')
async def tokens(scale: Scale) -> Report:
    at_once = scale.pick(2, 100, 200)
    counts = scale.pick(5, 20, 100), scale.pick(20, 200, 600)
    graph = _bare_graph()
    (floor_us,) = await _slopes(lambda n: _bare(graph, n), lambda: (own_cpu_s(),), at_once, counts)
    with (
        data_folder() as data_dir,
        platform(data_dir) as ours,
        server("benchmarks._paced_server", str(_PACE_S), data_dir=data_dir) as paced,
    ):
        async with paced.client(ours.key) as client:
            await publish(client, "paced", ASKING)
            await asyncio.gather(*(_streamed(client, 1) for _ in range(at_once)))  # everything is loaded
            postgres = ours.postgres
            ours_us, database_us = await _slopes(
                lambda n: _streamed(client, n),
                lambda: (cpu_s([paced.process]), cpu_s(postgres)),
                at_once,
                counts,
            )
    what = f"{at_once} runs at once, {1 / _PACE_S:.0f} tokens per second each"
    rows = [
        Row(f"{what}: API process", "CPU µs per token", ours_us, floor_us, _AIM),
        Row(f"{what}: with PostgreSQL", "CPU µs per token", ours_us + database_us, floor_us),
    ]
    cpu = {"ours": {"API": ours_us, "PostgreSQL": database_us}, "floor": {"API": floor_us}}
    return Report(rows, cpu, "CPU µs per token")


async def _slopes(
    write: Write, used: Callable[[], tuple[float, ...]], at_once: int, counts: tuple[int, int]
) -> list[float]:
    """Microseconds per token for each of the CPU clocks that `used` reads."""
    costs: dict[int, list[list[float]]] = {count: [] for count in counts}
    for count in counts * _ROUNDS:
        before = used()
        await asyncio.gather(*(write(count) for _ in range(at_once)))
        costs[count].append([after - earlier for after, earlier in zip(used(), before, strict=True)])
    few, many = ([min(clock) for clock in zip(*costs[count], strict=True)] for count in counts)
    more = at_once * (counts[1] - counts[0])
    return [(most - least) * 1e6 / more for least, most in zip(few, many, strict=True)]


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
