"""Work that is brought to its end whatever becomes of who waits for it."""

from __future__ import annotations

import asyncio

import pytest

from app.core.tasks import whole


async def test_whole_work_ends_before_a_cancellation_is_raised() -> None:
    begun, ended = asyncio.Event(), list[bool]()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.05)
        ended.append(True)

    waiting = asyncio.create_task(whole(work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended == [True]


async def test_whole_work_that_fails_after_a_cancellation_leaves_the_cancellation() -> None:
    begun = asyncio.Event()

    async def work() -> None:
        begun.set()
        await asyncio.sleep(0.01)
        raise RuntimeError("late")

    waiting = asyncio.create_task(whole(work()))
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
