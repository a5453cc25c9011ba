"""What one agent run costs over HTTP: with authentication, lease, event log and journal around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import psutil

from benchmarks.children import BenchmarkFailed, Platform, call, data_folder, platform, server
from benchmarks.processes import cpu_s, used
from benchmarks.registry import Report, Row, Scale, benchmark
from benchmarks.rounds import Cost, Side, take_turns

_AIM = 1.9
FLOOR = "floor"
_AT_ONCE = 8
_ROUNDS = 5
_INPUT = {"name": "world"}
Send = Callable[[], Awaitable[None]]

GREETING: dict[str, Any] = {
    "schema_version": "1",
    "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "interface": {"message": "name", "answer": "text"},
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "greet", "type": "template", "config": {"text": "Hello, {{ inputs.name }}!"}},
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
    ],
    "edges": [{"source": "start", "target": "greet"}, {"source": "greet", "target": "done"}],
}
# Without passages the offline model answers one fixed sentence: a model call that computes nothing.
ASKING: dict[str, Any] = GREETING | {
    "bindings": {"models": {"main": "default-chat"}},
    "nodes": [
        {"id": "start", "type": "start"},
        {
            "id": "greet",
            "type": "llm",
            "config": {"model": "main", "prompt": [{"role": "user", "content": "{{ inputs.name }}"}]},
        },
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
    ],
}


@benchmark("run", floor="FastAPI, LangGraph with three nodes and one inserted row per run")
async def run(scale: Scale) -> Report:
    count = scale.pick(8, 100, 1000)
    with data_folder() as data_dir, platform(data_dir) as ours:
        url = ours.services.migration_url
        with server("benchmarks.floors.bare_runs", url, data_dir=data_dir) as bare:
            async with ours.client() as client, bare.client() as bare_client:
                await publish(client, "greeting", GREETING)
                await publish(client, "asking", ASKING)
                cases = {
                    "3 nodes, one template": waiting(client, "greeting", _INPUT),
                    "3 nodes, one model call": waiting(client, "asking", _INPUT),
                    "3 nodes, one model call, streamed": _streaming(client, "asking"),
                }
                floor = sender(bare_client, "/runs", {"input": _INPUT})
                # The floor is sent more often: a clock that ticks every 10 ms hardly sees less.
                sent = dict.fromkeys(cases, count) | {FLOOR: 10 * count}
                return await compared(ours, bare.process, cases | {FLOOR: floor}, sent, aim=_AIM)


async def publish(client: Any, slug: str, graph: dict[str, Any]) -> None:
    """Makes an agent whose version 1 is live."""
    await call(client, "POST", "/agents", {"name": slug, "slug": slug, "graph": graph})
    await call(client, "POST", f"/agents/{slug}/publish")


async def compared(
    ours: Platform, bare: psutil.Process, sends: Mapping[str, Send], sent: Mapping[str, int], *, aim: float
) -> Report:
    """CPU of each of `sends`, sent so often per round; `FLOOR` is the one that `bare` serves."""

    def bare_cpu() -> dict[str, float]:
        return {"API": cpu_s([bare]), "PostgreSQL": cpu_s(ours.postgres)}

    def side(name: str, send: Send) -> Side:
        return partial(_cost, send, bare_cpu if name == FLOOR else ours.cpu, sent[name])

    for send in sends.values():
        await _many(send, 2 * _AT_ONCE)  # engines loaded, statements prepared, pools filled
    rounds = await take_turns({name: side(name, send) for name, send in sends.items()}, _ROUNDS)
    least = {name: rounds.least(name) for name in sends}
    rows = [
        Row(
            f"{name}: {process}",
            "CPU ms per run",
            least[name][process],
            least[FLOOR][process],
            aim if process == "API" else None,
            spread=rounds.spread(name, FLOOR, process),
        )
        for process in ("API", "PostgreSQL")
        for name in sends
        if name != FLOOR
    ]
    return Report(rows, least, "CPU ms per run")


async def _cost(send: Send, cpu: Callable[[], dict[str, float]], count: int) -> Cost:
    """CPU milliseconds per call, by process."""
    before = cpu()
    await _many(send, count)
    return used(before, cpu(), per=count / 1e3)


async def _many(send: Send, count: int) -> None:
    free = asyncio.Semaphore(_AT_ONCE)

    async def one() -> None:
        async with free:
            await send()

    await asyncio.gather(*(one() for _ in range(count)))


def waiting(client: Any, slug: str, given: dict[str, str]) -> Send:
    """Runs the agent with that input to its end."""
    return sender(client, f"/api/v1/agents/{slug}/runs", {"input": given, "mode": "wait"})


def sender(client: Any, path: str, body: dict[str, Any]) -> Send:
    """Posts `body`; `BenchmarkFailed` unless the answer is a run that succeeded."""

    async def send() -> None:
        answer = await client.post(path, json=body)
        if answer.status_code != 200 or answer.json()["status"] != "succeeded":
            raise BenchmarkFailed(f"{path}: {answer.status_code} {answer.text[:500]}")

    return send


def _streaming(client: Any, slug: str) -> Send:
    body = {"input": _INPUT, "mode": "stream"}

    async def send() -> None:
        answer = await client.post(f"/api/v1/agents/{slug}/runs", json=body)
        if b"event: RUN_FINISHED" not in answer.content:
            raise BenchmarkFailed(f"the stream did not end well: {answer.text[-500:]}")

    return send
