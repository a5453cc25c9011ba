"""SIGTERM amid a run: its stream ends between two events, the run goes on elsewhere, the client resumes."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.openai_compatible_double import Double
from tests.trust.runs.agents import published, talking_graph
from tests.trust.runs.rows import run_row
from tests.trust.runs.streams import TERMINAL, check_whole, names, opened, read, run_of
from tests.trust.runs.talking import answer, question
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

WORDS = 30


async def stopped_amid(process: Platform, *, every_s: float) -> list[bytes]:
    """What a client sees of a streamed run until the process has stopped."""
    with process.client() as client:
        agent = published(client, "talks", talking_graph(1))
    body = {"input": question(WORDS, every_s=every_s), "mode": "stream"}
    async with opened(process.url, f"/agents/{agent}/runs", body=body) as stream:
        frames = stream.frames()
        seen = [await anext(frames) for _ in range(6)]
        stopping = asyncio.create_task(asyncio.to_thread(process.stop))
        seen += [frame async for frame in frames]  # it ends as streams do, not by a broken connection
        assert await stopping == 0
    assert names(seen)[-1] not in TERMINAL
    return seen


async def check_resumed(process: Platform, seen: list[bytes]) -> None:
    rest = await read(process.url, run_of(seen), after=len(seen), by_header=True)
    check_whole(seen + rest)
    assert seen + rest == await read(process.url, run_of(seen))
    status, output = await run_row(process, run_of(seen), "status", "output")
    assert (status, json.loads(output)) == ("succeeded", {"text": answer(WORDS)})


async def test_goes_on_when_it_is_started_again(alone: Platform, model: Double) -> None:
    seen = await stopped_amid(alone, every_s=0.1)
    assert model.open == 0
    alone.start()
    await check_resumed(alone, seen)


async def test_goes_on_at_another_process(api: Platform, other: Platform) -> None:
    seen = await stopped_amid(other, every_s=0.1)
    await check_resumed(api, seen)


@pytest.mark.soak
async def test_that_takes_no_longer_than_the_grace_ends_before(alone: Platform) -> None:
    with alone.client() as client:
        agent = published(client, "talks", talking_graph(1))
    body = {"input": question(5, every_s=0.1), "mode": "stream"}
    async with opened(alone.url, f"/agents/{agent}/runs", body=body) as stream:
        frames = stream.frames()
        seen = [await anext(frames) for _ in range(4)]
        stopping = asyncio.create_task(asyncio.to_thread(alone.stop))
        seen += [frame async for frame in frames]
        await stopping
    alone.start()
    rest = await read(alone.url, run_of(seen), after=len(seen))
    check_whole(seen + rest)
