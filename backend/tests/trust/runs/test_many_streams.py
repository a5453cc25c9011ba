"""Hundreds of streamed runs in one process, and clients that vanish amid them: nothing is lost or left."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

import pytest

from tests.openai_compatible_double import Double
from tests.trust.runs.agents import published, talking_graph
from tests.trust.runs.footprint import Footprint, peak, settled
from tests.trust.runs.streams import check_whole, first, opened, read, run_of, spoken
from tests.trust.runs.talking import Talker, answer, question
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(600)]

MB = 10**6
WORDS = 20
_MB_PER_STREAM = 0.25
_MB_OF_NOISE = 30
"""What an allocator may keep that holds nothing."""
_POOL = 10 + 3
"""Connections to the database: the pool's (ORRERY_DATABASE_POOL_SIZE); for notices, logs and heartbeats."""


@dataclass(frozen=True, slots=True)
class Size:
    """How many streams there are at once, how often, and how far the words are apart."""

    at_once: int
    waves: int
    every_s: float


SIZES = [
    pytest.param(Size(40, 2, 0.05), id="forty"),
    pytest.param(Size(200, 4, 0.1), id="two-hundred", marks=pytest.mark.soak),
]
VANISHING = [
    pytest.param(Size(30, 2, 0.03), id="sixty"),
    pytest.param(Size(125, 4, 0.05), id="five-hundred", marks=pytest.mark.soak),
]


@pytest.fixture
def agent(api: Platform) -> str:
    with api.client() as client:
        return published(client, "talks", talking_graph(1))


def asked(size: Size) -> dict[str, object]:
    return {"input": question(WORDS, every_s=size.every_s), "mode": "stream"}


async def whole_stream(api: Platform, agent: str, size: Size) -> list[bytes]:
    async with opened(api.url, f"/agents/{agent}/runs", body=asked(size)) as stream:
        assert stream.status == 200, await stream.text()
        return [frame async for frame in stream.frames()]


def check(frames: list[bytes]) -> None:
    check_whole(frames)
    assert spoken(frames) == answer(WORDS)


@pytest.mark.parametrize("size", SIZES)
async def test_at_once_are_all_whole_and_leave_nothing(
    api: Platform, agent: str, model: Double, talker: Talker, size: Size
) -> None:
    async def wave(count: int) -> list[list[bytes]]:
        talker.crowd = count
        return list(await asyncio.gather(*(whole_stream(api, agent, size) for _ in range(count))))

    await wave(size.at_once // 2)  # the engine is loaded, pools are filled
    before, held = await settled(api), list[Footprint]()
    async with peak(api) as most:
        for _ in range(size.waves):
            for frames in await wave(size.at_once):
                check(frames)
                assert await read(api.url, run_of(frames)) == frames
            held.append(await settled(api))
    assert (model.open, model.most_open) == (0, size.at_once)
    check_left(before, held, most.memory, size)


@pytest.mark.parametrize("size", VANISHING)
async def test_whose_clients_vanish_go_on_and_leave_nothing(
    api: Platform, agent: str, model: Double, lots: random.Random, size: Size
) -> None:
    async def vanish() -> str:
        """Reads some of a stream, or nothing, and resets or closes the connection; its run."""
        async with opened(api.url, f"/agents/{agent}/runs", body=asked(size)) as stream:
            await first(stream, lots.randrange(WORDS))
            if lots.random() < 0.5:
                stream.vanish()
            return stream.headers["location"].rpartition("/")[2]

    await asyncio.gather(*(vanish() for _ in range(size.at_once)))
    before, held = await settled(api), list[Footprint]()
    async with peak(api) as most:
        for _ in range(size.waves):
            runs = await asyncio.gather(*(vanish() for _ in range(size.at_once)))
            held.append(await settled(api))
            for run_id in runs:
                check(await read(api.url, run_id))
    assert model.open == 0
    check_left(before, held, most.memory, size)


def check_left(before: Footprint, held: list[Footprint], most: int, size: Size) -> None:
    """No file, client or connection is left; memory is bounded at once and does not grow by waves."""
    assert [(after.clients, after.busy) for after in held] == [(0, 0)] * len(held)
    # Files and connections are not counted at the same moment; what leaks is there in every wave.
    assert min(after.files for after in held) <= before.files
    assert max(after.database for after in held) <= _POOL
    memory = [before.memory // MB, most // MB, *(after.memory // MB for after in held)]
    assert most - before.memory < (_MB_OF_NOISE + size.at_once * _MB_PER_STREAM) * MB, memory
    assert held[-1].memory - held[0].memory < _MB_OF_NOISE * MB, memory
