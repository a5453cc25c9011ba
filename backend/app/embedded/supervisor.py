"""Keeps a service running for as long as we do."""

from __future__ import annotations

import asyncio
import math
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.core.errors import AppError
from app.embedded.failures import DiedAtStart
from app.embedded.ports import free_port
from app.embedded.process import exited

_START_TRIES = 3
_POLL_S = 0.2
_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 10.0
_STEADY_S = 30.0

log = structlog.get_logger(__name__)


class Server(Protocol):
    """A program that can be started again and again on the same port."""

    @property
    def name(self) -> str: ...

    async def start(self, port: int) -> subprocess.Popen[bytes]: ...

    async def stop(self, process: subprocess.Popen[bytes]) -> None: ...


@asynccontextmanager
async def supervised(server: Server) -> AsyncIterator[int]:
    """Runs `server` inside the block and yields its port; when it dies it is started again there.

    Raises:
        Misconfigured: it cannot be started in the first place.
    """
    port, process = await _first_start(server)
    keeper = _Keeper(server, port=port, process=process)
    watch = asyncio.create_task(keeper.watch(), name=f"keep {server.name}")
    try:
        yield port
    finally:
        watch.cancel()
        try:
            await asyncio.wait([watch])
        finally:
            await server.stop(keeper.process)


async def _first_start(server: Server) -> tuple[int, subprocess.Popen[bytes]]:
    """Tries again with another port: the free one may be taken before the server binds it."""
    for _ in range(_START_TRIES - 1):
        port = free_port()
        try:
            return port, await server.start(port)
        except DiedAtStart as error:
            log.warning("service is started again", service=server.name, reason=error.detail)
    port = free_port()
    return port, await server.start(port)


@dataclass(slots=True)
class _Keeper:
    """The current process of a server, and the wait for its end."""

    server: Server
    port: int
    process: subprocess.Popen[bytes]

    async def watch(self) -> None:
        """Never returns; pauses grow while the service keeps dying and shrink once it is steady."""
        clock = asyncio.get_running_loop().time
        pause_s = _FIRST_PAUSE_S
        while True:
            began = clock()
            await exited(self.process, timeout_s=math.inf, poll_s=_POLL_S)
            if clock() - began >= _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            log.warning("service died", service=self.server.name, status=self.process.returncode)
            pause_s = await self._restart(pause_s)

    async def _restart(self, pause_s: float) -> float:
        """Tries until it works, pausing before each try; returns the pause for the next time."""
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, _LAST_PAUSE_S)
            try:
                self.process = await self.server.start(self.port)
            except (AppError, OSError) as error:
                log.error(
                    "service does not start",
                    service=self.server.name,
                    reason=str(error),
                    next_try_in_s=pause_s,
                )
            else:
                log.info("service is back", service=self.server.name, port=self.port)
                return pause_s
