"""Servers of a test on an event loop in a thread of their own, where nothing of the test can hold them up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import TypeVar

T = TypeVar("T")

_PATIENCE_S = 30


@contextmanager
def elsewhere(manager: AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enters `manager` there for the length of the block."""
    entered: Future[tuple[T, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def stay() -> None:
        over = asyncio.Event()
        async with manager as value:
            entered.set_result((value, asyncio.get_running_loop(), over))
            await over.wait()

    def run() -> None:
        try:
            asyncio.run(stay())
        except BaseException as error:
            if not entered.done():
                entered.set_exception(error)
            raise

    thread = threading.Thread(target=run, name="elsewhere")
    thread.start()
    value, loop, over = entered.result(_PATIENCE_S)
    try:
        yield value
    finally:
        loop.call_soon_threadsafe(over.set)
        thread.join(_PATIENCE_S)
