"""The Redis server: a wake-up for workers and nothing more, so it keeps nothing on disk."""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

from app.core.errors import Misconfigured
from app.embedded.failures import log_end, start_failure
from app.embedded.leftovers import end_leftovers
from app.embedded.places import Places
from app.embedded.ports import LOOPBACK
from app.embedded.private import private_folder, write_private
from app.embedded.process import Command, launch, stop

_CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
protected-mode yes
daemonize no
loglevel warning
appendonly no
save ""
maxmemory 256mb
maxmemory-policy noeviction
"""
_STOP = ((Signals.SIGTERM, 5.0),)
_POLL_S = 0.02
_ANSWER_S = 2.0


@dataclass(frozen=True, slots=True)
class Redis:
    """Starts and stops one Redis on `places.redis`."""

    places: Places
    program: Path
    password: str = field(repr=False)
    timeout_s: float

    @property
    def name(self) -> str:
        return "redis"

    async def start(self, port: int) -> subprocess.Popen[bytes]:
        """Returns once PING is answered. Whatever still ran in the same folder is stopped first.

        Raises:
            DiedAtStart: the server ended (port taken, …).
            Misconfigured: it does not answer in time.
        """
        folder = private_folder(self.places.redis, account=self.places.account)
        await end_leftovers("redis-server", folder, polite=Signals.SIGTERM, firm=Signals.SIGTERM)
        # a file, because everyone on the machine can read a command line
        text = _CONFIGURATION.format(host=LOOPBACK, port=port, password=self.password)
        write_private(folder / "redis.conf", text, account=self.places.account)
        log = self.places.logs / "redis.log"
        offset = log_end(log)
        process = launch(
            Command(
                argv=(str(self.program), "redis.conf"),
                cwd=folder,
                log=log,
                account=self.places.account,
                death_signal=Signals.SIGTERM,
            )
        )
        try:
            await self._until_answering(process, port, offset=offset)
        except BaseException:
            await self.stop(process)
            raise
        return process

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        await stop(process, _STOP)

    async def _until_answering(self, process: subprocess.Popen[bytes], port: int, *, offset: int) -> None:
        log = self.places.logs / "redis.log"
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        while not await _answers(port, self.password):
            if process.poll() is not None:
                what = f"Redis ended with status {process.returncode} at its start"
                raise start_failure(what, log=log, offset=offset)
            if asyncio.get_running_loop().time() >= deadline:
                what = f"Redis did not answer within {self.timeout_s:g} s"
                raise Misconfigured(start_failure(what, log=log, offset=offset).detail)
            await asyncio.sleep(_POLL_S)


async def _answers(port: int, password: str) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                return [await reader.readline(), await reader.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
            finally:
                writer.close()
    except OSError:  # refused, cut or timed out
        return False
