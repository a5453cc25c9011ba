"""Ending background tasks without losing a cancellation of one's own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")


async def end(task: asyncio.Future[Any]) -> None:
    """Cancels `task` and waits for it. A cancellation of the caller meanwhile is not swallowed.

    (`suppress(CancelledError)` around `await task` would swallow it.)
    """
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def whole(work: Coroutine[Any, Any, T]) -> T:
    """Brings `work` to its end; a cancellation of the caller is raised only then."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.gather(task, return_exceptions=True)
        raise


@contextmanager
def cancellation_kept() -> Iterator[None]:
    """A cancellation inside the block leaves it as one, whatever error the clean-up hid it behind.

    (A statement that is cancelled makes the rollback fail, one time in ten: a loop that survives errors
    would then survive its end, too.)
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        yield
    except Exception as error:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError from error
        raise
