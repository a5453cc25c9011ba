"""Keeps a service running for as long as we do."""

from __future__ import annotations

import asyncio
import errno
import math
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import structlog

from app.core.errors import AppError, Misconfigured
from app.embedded.failures import DiedAtStart, DiskFull, ServiceLost
from app.embedded.ports import free_port
from app.embedded.process import exited

_START_TRIES = 3
_POLL_S = 0.2
_FIRST_PAUSE_S = 0.1
_LAST_PAUSE_S = 10.0
_STEADY_S = 30.0
_FULL_PAUSE_S = 2.0

log = structlog.get_logger(__name__)

Lost = Callable[[Misconfigured], None]
"""Called once with the sentence for the operator when a service is given up."""


def log_lost(reason: Misconfigured) -> None:
    """For those who have nothing to end."""
    log.error("the platform goes on without a service", reason=reason.detail)


class Server(Protocol):
    """A program that can be started again and again on the same port."""

    @property
    def name(self) -> str: ...

    async def start(self, port: int) -> subprocess.Popen[bytes]: ...

    async def stop(self, process: subprocess.Popen[bytes]) -> None: ...


@asynccontextmanager
async def supervised(server: Server, *, restarts: int, lost: Lost) -> AsyncIterator[int]:
    """Runs `server` inside the block and yields its port; when it dies it is started again there.

    After `restarts` starts in a row that did not last, `lost` is called and nothing is tried any more. A
    full disk does not count: it is waited for until it has room again.

    Raises:
        Misconfigured: it cannot be started in the first place.
    """
    port, process = await _first_start(server)
    keeper = _Keeper(server, port=port, process=process, restarts=restarts, lost=lost)
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
        except DiskFull:
            raise
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
    restarts: int
    lost: Lost
    reason: str = ""

    async def watch(self) -> None:
        """Returns when the service is given up; pauses grow until it has been steady for a while."""
        clock = asyncio.get_running_loop().time
        tries = 0
        while True:
            began = clock()
            await exited(self.process, timeout_s=math.inf, poll_s=_POLL_S)
            if clock() - began >= _STEADY_S:
                tries = 0
            if not self.reason:
                self.reason = f"it ended with status {self.process.returncode}"
                log.warning("service died", service=self.server.name, status=self.process.returncode)
            if tries >= self.restarts:
                return self._give_up(tries)
            await asyncio.sleep(min(_FIRST_PAUSE_S * 2**tries, _LAST_PAUSE_S))
            tries += await self._start_again()

    async def _start_again(self) -> int:
        """One try; answers whether it counts as one."""
        try:
            self.process = await self.server.start(self.port)
        except (AppError, OSError) as error:
            self.reason = str(error)
            log.error("service does not start", service=self.server.name, reason=self.reason)
            if isinstance(error, DiskFull) or getattr(error, "errno", None) == errno.ENOSPC:
                await asyncio.sleep(_FULL_PAUSE_S)
                return 0
            return 1
        self.reason = ""
        log.info("service is back", service=self.server.name, port=self.port)
        return 1

    def _give_up(self, tries: int) -> None:
        log.error("service is given up", service=self.server.name, tries=tries)
        self.lost(
            ServiceLost(
                f"{self.server.name} was started {tries} times in a row and did not last: {self.reason}"
            )
        )
