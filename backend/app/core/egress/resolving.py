"""Names → addresses, with the system's resolver in threads of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from contextvars import ContextVar
from ipaddress import ip_address
from typing import Protocol
from uuid import UUID

from app.core.addresses import Address
from app.core.egress.shares import Shares

_Found = tuple[object, object, object, str, tuple[str, int]]
CALLER: ContextVar[UUID] = ContextVar("egress_caller")
"""The organization whose call is being connected."""


class Resolver(Protocol):
    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """All addresses of `host`, best first; none if it does not exist.

        Raises `OSError` if that could not be found out. The caller limits the time.
        """
        ...


class SystemResolver:
    """`getaddrinfo`. Its threads are not the loop's: a name server that never answers holds one for as
    long as the system waits, and would soon stop everything else that needs a thread.

    For the same reason one organization uses half of the threads at most, those counted that nobody waits
    for any more.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")
        self._shares = Shares(max(1, threads // 2))
        self._abandoned: set[asyncio.Task[None]] = set()

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        loop = asyncio.get_running_loop()
        async with AsyncExitStack() as held:
            await held.enter_async_context(self._shares.place(CALLER.get(), until=None))
            work = loop.run_in_executor(self._threads, _look_up, host, port)
            try:
                found = await asyncio.shield(work)
            except asyncio.CancelledError:
                self._leave(work, held.pop_all())
                raise
            except socket.gaierror as error:
                if error.errno == socket.EAI_AGAIN:
                    raise
                return ()
        return [ip_address(place[0]) for *_, place in found]

    def _leave(self, work: asyncio.Future[list[_Found]], held: AsyncExitStack) -> None:
        """The thread goes on, and so does its place."""
        task = asyncio.create_task(_until_done(work, held), name="abandoned-look-up")
        self._abandoned.add(task)
        task.add_done_callback(self._abandoned.discard)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for task in self._abandoned:
            task.cancel()


async def _until_done(work: asyncio.Future[list[_Found]], held: AsyncExitStack) -> None:
    async with held:
        with suppress(OSError):
            await work


def _look_up(host: str, port: int) -> list[_Found]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]
