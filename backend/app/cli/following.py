"""`orrery worker` beside an `orrery serve` that brings its own services: it follows them wherever they go.

Embedded services have other ports after each start. So the work is done by a child process, which is ended
when its services go, and another one is started on those that come back.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from signal import SIGKILL

import structlog

from app.cli.stopping import Stop
from app.core.config import Settings
from app.core.processes import die_with
from app.embedded import ServicesFile, read_services_file
from app.embedded.process import exited
from app.resources import process_name

logger = structlog.get_logger(__name__)

WORKER_ID = "ORRERY_WORKER_ID"
_LOOK_EVERY_S = 0.5
_POLL_S = 0.1
_GONE_WITHIN_S = 5.0


def is_to_follow(settings: Settings, found: ServicesFile) -> bool:
    """Whether a worker depends on services that come, go and move with the `orrery serve` that was found."""
    told = settings.database_url is not None and settings.redis_url is not None
    return bool(found.owned) and not told


async def follow(settings: Settings, found: ServicesFile, arguments: Sequence[str]) -> int:
    """Runs `orrery` with `arguments` on the services `found`, then on those that come after them.

    Answers the exit code: 0 once SIGTERM or SIGINT asked for the end, else that of a child that ended by
    itself.
    """
    stop = Stop()
    with stop.listening():
        try:
            while True:
                code = await _Worker(settings, found, arguments).ended()
                if code is not None:
                    return code
                found = await _next_services(settings)
        except asyncio.CancelledError:
            if not stop.begun.is_set():
                raise
            return 0


@dataclass(frozen=True, slots=True)
class _Worker:
    """One child, from its start to its end."""

    settings: Settings
    found: ServicesFile
    arguments: Sequence[str]

    async def ended(self) -> int | None:
        """The exit code of a child that ended by itself; None where its services went."""
        process = self._start()
        try:
            while self._has_services():
                if await exited(process, timeout_s=_LOOK_EVERY_S, poll_s=_POLL_S):
                    break
        finally:
            await self._end(process)
        if not self._has_services():
            return None
        return process.returncode if process.returncode >= 0 else 128 - process.returncode

    def _start(self) -> subprocess.Popen[bytes]:
        services = {
            "ORRERY_DATABASE_URL": self.found.database_url,
            "ORRERY_REDIS_URL": self.found.redis_url,
            WORKER_ID: process_name(self.settings),
        }
        return subprocess.Popen(
            [sys.executable, "-m", "app.cli", *self.arguments],
            env=os.environ | services,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=die_with(os.getpid(), SIGKILL),
        )

    def _has_services(self) -> bool:
        return not self.found.owned or read_services_file(self.settings) == self.found

    async def _end(self, process: subprocess.Popen[bytes]) -> None:
        """Lets it hand over what it has in hand, for as long as that is its own and there is a database."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self.settings.shutdown_grace_s + self.settings.lease_s
        if process.poll() is None and self._has_database():
            process.terminate()
        while self._has_database() and clock() < deadline:
            if await exited(process, timeout_s=_LOOK_EVERY_S, poll_s=_POLL_S):
                break
        with suppress(ProcessLookupError):
            os.killpg(process.pid, SIGKILL)
        await exited(process, timeout_s=_GONE_WITHIN_S)

    def _has_database(self) -> bool:
        return "postgresql" not in self.found.owned or self._has_services()


async def _next_services(settings: Settings) -> ServicesFile:
    """Waits for them where there are none; the log says so, and when there are."""
    found = read_services_file(settings)
    if found is not None:
        logger.warning("services_moved", serve=found.pid)
        return found
    logger.warning("services_gone", waiting_for="orrery serve")
    while found is None:
        await asyncio.sleep(_LOOK_EVERY_S)
        found = read_services_file(settings)
    logger.info("services_back", serve=found.pid)
    return found
