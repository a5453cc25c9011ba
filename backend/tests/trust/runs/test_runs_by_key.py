"""G5: however many ask for a run with one `Idempotency-Key`, and wherever, it is one run with one answer."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import uuid4

import pytest

from tests.trust.orphans import fetch
from tests.trust.runs.agents import published, talking_graph
from tests.trust.runs.streams import check_whole, opened, read, run_of
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

PARALLEL = 50
ROUNDS = [1, pytest.param(20, marks=pytest.mark.soak)]


@pytest.fixture
def agent(api: Platform) -> str:
    """A fresh one, so that its runs can be counted."""
    with api.client() as client:
        return published(client, f"keyed-{uuid4().hex[:12]}", talking_graph(3))


async def runs_of(api: Platform, agent: str) -> list[str]:
    statement = "SELECT r.id FROM agent_runs r JOIN agents a ON a.id = r.agent_id WHERE a.slug = $1"
    return [str(run_id) for (run_id,) in await fetch(api, statement, agent)]


async def together(processes: tuple[Platform, Platform], send: Any) -> list[Any]:
    """What `PARALLEL` calls of `send(url)` answer that go to both processes at once."""
    urls = [process.url for process in processes]
    return list(await asyncio.gather(*(send(urls[number % 2]) for number in range(PARALLEL))))


def asked(mode: str) -> dict[str, Any]:
    return {"input": {"name": "Ada"}, "mode": mode}


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_waited_for_by_fifty_at_two_processes(
    api: Platform, other: Platform, agent: str, rounds: int
) -> None:
    made = set()
    for _ in range(rounds):
        headers = {"Idempotency-Key": uuid4().hex}

        async def wait(url: str, headers: dict[str, str] = headers) -> tuple[int, str]:
            path = f"/agents/{agent}/runs"
            async with opened(url, path, body=asked("wait"), headers=headers) as answer:
                return answer.status, await answer.text()

        answers = await together((api, other), wait)
        assert {status for status, _ in answers} == {200}, answers
        (answer,) = {text for _, text in answers}
        assert json.loads(answer)["status"] == "succeeded"
        made.add(json.loads(answer)["id"])
    assert set(await runs_of(api, agent)) == made
    assert len(made) == rounds


@pytest.mark.parametrize("rounds", ROUNDS)
async def test_streamed_to_fifty_at_two_processes(
    api: Platform, other: Platform, agent: str, rounds: int
) -> None:
    made = set()
    for _ in range(rounds):
        headers = {"Idempotency-Key": uuid4().hex}

        async def stream(url: str, headers: dict[str, str] = headers) -> bytes:
            path = f"/agents/{agent}/runs"
            async with opened(url, path, body=asked("stream"), headers=headers) as answer:
                assert answer.status == 200, await answer.text()
                return b"\n\n".join([frame async for frame in answer.frames()])

        (stored,) = set(await together((api, other), stream))
        frames = stored.split(b"\n\n")
        check_whole(frames)
        made.add(run_of(frames))
        assert await read(other.url, run_of(frames)) == frames
    assert set(await runs_of(api, agent)) == made
    assert len(made) == rounds


async def test_left_in_the_background_by_fifty_at_two_processes(
    api: Platform, other: Platform, agent: str
) -> None:
    headers = {"Idempotency-Key": uuid4().hex}

    async def leave(url: str) -> str:
        async with opened(url, f"/agents/{agent}/runs", body=asked("background"), headers=headers) as answer:
            assert answer.status in (200, 202), await answer.text()
            return str(json.loads(await answer.text())["id"])

    (made,) = set(await together((api, other), leave))
    check_whole(await read(other.url, made))
    assert await runs_of(api, agent) == [made]


async def test_another_body_with_the_key_makes_no_run_at_any_process(
    api: Platform, other: Platform, agent: str
) -> None:
    headers = {"Idempotency-Key": uuid4().hex}

    async def ask(url: str, name: str) -> int:
        body = asked("wait") | {"input": {"name": name}}
        async with opened(url, f"/agents/{agent}/runs", body=body, headers=headers) as answer:
            return answer.status

    statuses = await asyncio.gather(
        *(ask(process.url, name) for process in (api, other) for name in ("Ada", "Bob"))
    )
    assert sorted(statuses) == [200, 200, 409, 409]
    assert len(await runs_of(api, agent)) == 1
