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
from benchmarks.rounds import Cost, take_turns

_AIM = 1.9
_FLOOR = "floor"
_AT_ONCE = 8
_ROUNDS = 3
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
    count = scale.pick(8, 50, 1000)
    with data_folder() as data_dir, platform(data_dir) as ours:
        url = ours.services.migration_url
        with server("benchmarks.floors.bare_runs", url, data_dir=data_dir) as bare:
            async with ours.client() as client, bare.client() as bare_client:
                await publish(client, "greeting", GREETING)
                await publish(client, "asking", ASKING)
                cases = {
                    "3 nodes, one template": _waiting(client, "greeting"),
                    "3 nodes, one model call": _waiting(client, "asking"),
                    "3 nodes, one model call, streamed": _streaming(client, "asking"),
                }
                floor = _sender(bare_client, "/runs", {"input": {"name": "world"}})
                return await _report(ours, bare.process, cases, floor, count)


async def publish(client: Any, slug: str, graph: dict[str, Any]) -> None:
    """Makes an agent whose version 1 is live."""
    await call(client, "POST", "/agents", {"name": slug, "slug": slug, "graph": graph})
    await call(client, "POST", f"/agents/{slug}/publish")


async def _report(
    ours: Platform, bare: psutil.Process, cases: Mapping[str, Send], floor: Send, count: int
) -> Report:
    def bare_cpu() -> dict[str, float]:
        return {"API": cpu_s([bare]), "PostgreSQL": cpu_s(ours.postgres)}

    # The floor is sent more often: a clock that ticks every 10 ms hardly sees less.
    sides = {_FLOOR: partial(_cost, floor, bare_cpu, 10 * count)}
    sides |= {name: partial(_cost, send, ours.cpu, count) for name, send in cases.items()}
    for send in (floor, *cases.values()):
        await _many(send, 2 * _AT_ONCE)  # engines loaded, statements prepared, pools filled
    rounds = await take_turns(sides, _ROUNDS)
    least = {name: rounds.least(name) for name in sides}
    rows = [
        Row(
            f"{name}: {process}",
            "CPU ms per run",
            least[name][process],
            least[_FLOOR][process],
            _AIM if process == "API" else None,
            spread=rounds.spread(name, _FLOOR, process),
        )
        for process in ("API", "PostgreSQL")
        for name in cases
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


def _waiting(client: Any, slug: str) -> Send:
    body = {"input": {"name": "world"}, "mode": "wait"}
    return _sender(client, f"/api/v1/agents/{slug}/runs", body)


def _sender(client: Any, path: str, body: dict[str, Any]) -> Send:
    async def send() -> None:
        answer = await client.post(path, json=body)
        if answer.status_code != 200 or answer.json()["status"] != "succeeded":
            raise BenchmarkFailed(f"{path}: {answer.status_code} {answer.text[:500]}")

    return send


def _streaming(client: Any, slug: str) -> Send:
    body = {"input": {"name": "world"}, "mode": "stream"}

    async def send() -> None:
        answer = await client.post(f"/api/v1/agents/{slug}/runs", json=body)
        if b"event: RUN_FINISHED" not in answer.content:
            raise BenchmarkFailed(f"the stream did not end well: {answer.text[-500:]}")

    return send
