"""Ending background tasks without losing a cancellation of one's own."""

from __future__ import annotations

import asyncio


async def end(task: asyncio.Task[None]) -> None:
    """Cancels `task` and waits for it. A cancellation of the caller meanwhile is not swallowed.

    (`suppress(CancelledError)` around `await task` would swallow it.)
    """
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
