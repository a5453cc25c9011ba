"""G4: a process that was frozen past its lease stores nothing when it wakes; its streams end by the log."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random
from uuid import uuid4

import pytest

from tests.openai_compatible_double import Double
from tests.trust.runs.agents import STEPS, order_graph, published, talking_graph
from tests.trust.runs.effects import Effects, effects
from tests.trust.runs.elsewhere import elsewhere
from tests.trust.runs.rows import rows_of, run_row, until
from tests.trust.runs.streams import check_whole, event_of, names, opened, read, run_of
from tests.trust.runs.talking import answer, question
from tests.trust.serving import Platform

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]

WORDS = 15


@pytest.fixture
def service(lots: Random) -> Iterator[Effects]:
    with elsewhere(effects(lots)) as service:
        service.pause_s = (0.4, 0.5)
        yield service


@asynccontextmanager
async def frozen(process: Platform) -> AsyncIterator[None]:
    """SIGSTOP for the length of the block."""
    assert process.process
    process.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.process.send_signal(signal.SIGCONT)


async def ended(process: Platform, run_id: str) -> None:
    async def over() -> bool:
        (finished_at,) = await run_row(process, run_id, "finished_at")
        return finished_at is not None

    await until(over)


async def has_written(process: Platform) -> None:
    """A run of its own from beginning to end: whatever was pending there has been tried by then."""
    with process.client() as client:
        agent = published(client, "talks", talking_graph(1))
    body = {"input": question(1, every_s=0), "mode": "wait"}
    async with opened(process.url, f"/agents/{agent}/runs", body=body) as stream:
        assert json.loads(await stream.text())["status"] == "succeeded"


async def test_frozen_amid_a_models_answer(api: Platform, other: Platform, model: Double) -> None:
    with api.client() as client:
        agent = published(client, "talks", talking_graph(1))
    body = {"input": question(WORDS, every_s=0.1), "mode": "stream"}
    async with opened(api.url, f"/agents/{agent}/runs", body=body) as stream:
        frames = stream.frames()
        seen = [await anext(frames) for _ in range(6)]
        run_id = run_of(seen)
        async with frozen(api):
            await ended(other, run_id)
            before = await rows_of(other, run_id)
        seen += [frame async for frame in frames]
    check_whole(seen)
    assert seen == await read(other.url, run_id)

    async def silent() -> bool:
        return model.open == 0

    await until(silent)
    await has_written(api)
    assert await rows_of(other, run_id) == before
    status, output = await run_row(other, run_id, "status", "output")
    assert (status, json.loads(output)) == ("succeeded", {"text": answer(WORDS)})


async def test_thawed_while_another_process_is_at_the_run(
    api: Platform, other: Platform, model: Double
) -> None:
    with api.client() as client:
        agent = published(client, "talks", talking_graph(1))
    body = {"input": question(3 * WORDS, every_s=0.1), "mode": "stream"}
    async with opened(api.url, f"/agents/{agent}/runs", body=body) as stream:
        frames = stream.frames()
        seen = [await anext(frames) for _ in range(6)]
        run_id, before = run_of(seen), model.open
        (fence,) = await run_row(other, run_id, "fence")

        async def answered_again() -> bool:
            (now,) = await run_row(other, run_id, "fence")
            return now > fence and model.open > before

        async with frozen(api):
            await until(answered_again)
        seen += [frame async for frame in frames]
    check_whole(seen)
    assert seen == await read(other.url, run_id)
    told = [(event_of(frame)["type"], event_of(frame).get("messageId")) for frame in seen]
    first, second = dict.fromkeys(message for kind, message in told if kind == "TEXT_MESSAGE_START")
    messages = [message for kind, message in told if kind == "TEXT_MESSAGE_CONTENT"]
    assert messages == sorted(messages, key=[first, second].index)  # nothing of the first one any more
    assert names(seen)[-1] == b"RUN_FINISHED"
    last_seq, output = await run_row(other, run_id, "last_seq", "output")
    assert (last_seq, json.loads(output)) == (len(seen), {"text": answer(3 * WORDS)})


async def test_frozen_amid_a_call_with_effects(api: Platform, other: Platform, service: Effects) -> None:
    with api.client() as client:
        agent = published(client, f"orders-{uuid4().hex[:8]}", order_graph(service.url))
    order = uuid4().hex
    body = {"input": {"order": order, "amount": 1000}, "mode": "stream"}
    async with opened(api.url, f"/agents/{agent}/runs", body=body) as stream:
        frames = stream.frames()
        seen = [await anext(frames)]

        async def called() -> bool:
            return service.count((order, "pay")) > 0

        await until(called, every_s=0.01)
        async with frozen(api):
            await ended(other, run_of(seen))
            before = await rows_of(other, run_of(seen))
            calls = dict(service.calls)
        seen += [frame async for frame in frames]
    check_whole(seen)
    await asyncio.sleep(service.pause_s[1])  # so that what it was told while frozen has led to something
    await has_written(api)
    assert await rows_of(other, run_of(seen)) == before
    assert sorted(service.effects(order)) == sorted([*STEPS, "large"])
    assert dict(service.calls) == calls
    assert seen == await read(other.url, run_of(seen))
