"""Names → addresses, with the system's resolver in threads of its own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Protocol

from app.core.addresses import Address


class Resolver(Protocol):
    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """All addresses of `host`, best first; none if it does not exist.

        Raises `OSError` if that could not be found out. The caller limits the time.
        """
        ...


class SystemResolver:
    """`getaddrinfo`. Its threads are not the loop's: a name server that never answers holds one for as
    long as the system waits, and would soon stop everything else that needs a thread.
    """

    def __init__(self, threads: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(self._threads, _look_up, host, port)
        except socket.gaierror as error:
            if error.errno == socket.EAI_AGAIN:
                raise
            return ()
        return [ip_address(place[0]) for *_, place in found]

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[tuple[object, object, object, str, tuple[str, int]]]:
    return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]
