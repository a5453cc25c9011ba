"""G6: a stream that was cut after event n goes on with exactly n + 1, byte for byte, whoever serves it."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from tests.trust.runs.agents import published, talking_graph
from tests.trust.runs.streams import check_whole, first, opened, read, run_of
from tests.trust.runs.talking import question
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

MODES = [pytest.param(True, id="Last-Event-ID"), pytest.param(False, id="after")]
SIZES = [pytest.param(4, id="short"), pytest.param(40, id="long", marks=pytest.mark.soak)]
_AT_ONCE = 8


@pytest.fixture(params=SIZES)
def agent(request: pytest.FixtureRequest, api: Platform) -> str:
    """One whose runs have some ten events per question; parametrized by how many it asks."""
    with api.client() as client:
        return published(client, f"talks-{request.param}", talking_graph(request.param))


async def started(api: Platform, agent: str, *, cut_after: int) -> tuple[str, list[bytes]]:
    """Starts a streamed run and cuts its stream after so many events; its id, and what was seen."""
    async with opened(api.url, f"/agents/{agent}/runs", body=streamed()) as stream:
        seen = await first(stream, cut_after)
        stream.vanish()
        return stream.headers["location"].rpartition("/")[2], seen


def streamed() -> dict[str, object]:
    return {"input": question(3, every_s=0.01), "mode": "stream"}


async def whole_run(api: Platform, agent: str) -> tuple[str, list[bytes]]:
    run_id, _ = await started(api, agent, cut_after=1)
    frames = await read(api.url, run_id)
    check_whole(frames)
    return run_id, frames


@pytest.mark.parametrize("by_header", MODES)
async def test_cut_after_each_event_while_the_run_executes(
    api: Platform, agent: str, by_header: bool
) -> None:
    _, usual = await whole_run(api, agent)
    free = asyncio.Semaphore(_AT_ONCE)

    async def cut_and_resume(place: int) -> None:
        async with free:
            run_id, seen = await started(api, agent, cut_after=place)
            rest = await read(api.url, run_id, after=len(seen), by_header=by_header)
            assert seen + rest == await read(api.url, run_id)
            check_whole(seen + rest)
            assert len(seen) == min(place, len(seen + rest))  # deltas are joined by chance

    await asyncio.gather(*(cut_and_resume(place) for place in range(len(usual) + 1)))


async def test_resumed_after_each_event_from_a_process_that_was_started_since(
    api: Platform, agent: str
) -> None:
    run_id, uncut = await whole_run(api, agent)
    api.kill()
    api.start()
    for place in range(len(uncut) + 1):
        assert await read(api.url, run_id, after=place, by_header=True) == uncut[place:]
        assert await read(api.url, run_id, after=place, by_header=False) == uncut[place:]


async def test_rejoined_after_each_event_by_the_key_it_was_created_with(api: Platform, agent: str) -> None:
    headers = {"Idempotency-Key": uuid4().hex}
    path = f"/agents/{agent}/runs"
    async with opened(api.url, path, body=streamed(), headers=headers) as stream:
        uncut = [frame async for frame in stream.frames()]
    check_whole(uncut)
    for place in range(len(uncut) + 1):
        again = headers | {"Last-Event-ID": str(place)}
        async with opened(api.url, path, body=streamed(), headers=again) as stream:
            assert [frame async for frame in stream.frames()] == uncut[place:]
    assert await read(api.url, run_of(uncut)) == uncut
