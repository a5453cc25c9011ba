"""The PostgreSQL server: TCP on the loopback interface, scram only, no Unix socket."""

from __future__ import annotations

import asyncio
import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals

import asyncpg
import psutil

from app.core.errors import Misconfigured
from app.embedded.cluster import OWNER, connect
from app.embedded.failures import log_end, start_failure
from app.embedded.leftovers import end_leftovers, find_leftovers
from app.embedded.places import Places
from app.embedded.ports import LOOPBACK
from app.embedded.process import Command, launch, stop

_STOP = ((Signals.SIGINT, 30.0), (Signals.SIGQUIT, 5.0))  # fast, then immediate
_POLL_S = 0.03
_SHARED_MEMORY_BYTES = 512 * 2**20


@dataclass(frozen=True, slots=True)
class Postgres:
    """Starts and stops one cluster, which exists already; `password` is that of its owner."""

    places: Places
    programs: Path
    password: str = field(repr=False)
    timeout_s: float

    @property
    def name(self) -> str:
        return "postgresql"

    async def start(self, port: int) -> subprocess.Popen[bytes]:
        """Returns once connections are accepted. Whatever of this cluster still ran is stopped first.

        Raises:
            DiedAtStart: the server ended (port taken, damaged files, …), `DiskFull` where that is why.
            Misconfigured: it does not answer in time, or the owner's password is another.
        """
        cluster = self.places.cluster
        await end_leftovers("postgres", cluster, polite=Signals.SIGINT, firm=Signals.SIGQUIT)
        forget_foreign_pid(cluster)
        log = self.places.logs / "postgresql.log"
        offset = log_end(log)
        process = launch(self._command(port, log=log))
        try:
            await self._until_accepting(process, port, offset=offset)
        except BaseException:
            await self.stop(process)
            raise
        return process

    async def stop(self, process: subprocess.Popen[bytes]) -> None:
        """Fast shutdown: open transactions are rolled back and a checkpoint is written."""
        await stop(process, _STOP)

    def _command(self, port: int, *, log: Path) -> Command:
        settings = {
            "port": str(port),
            "listen_addresses": LOOPBACK,
            "unix_socket_directories": "",
            "fsync": "on",
            "logging_collector": "off",
            # statements and key values of tenants, and passwords, stay out of the log
            "log_min_error_statement": "panic",
            "log_error_verbosity": "terse",
            **_shared_memory(),
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return Command(
            argv=(str(self.programs / "postgres"), "-D", str(self.places.cluster), *flags),
            cwd=self.places.home,
            log=log,
            account=self.places.account,
            death_signal=Signals.SIGINT,
        )

    async def _until_accepting(self, process: subprocess.Popen[bytes], port: int, *, offset: int) -> None:
        log = self.places.logs / "postgresql.log"
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        while not await self._accepts(port):
            if process.poll() is not None:
                what = f"PostgreSQL ended with status {process.returncode} at its start"
                raise start_failure(what, log=log, offset=offset)
            if asyncio.get_running_loop().time() >= deadline:
                what = f"PostgreSQL did not accept connections within {self.timeout_s:g} s"
                raise Misconfigured(start_failure(what, log=log, offset=offset).detail)
            await asyncio.sleep(_POLL_S)

    async def _accepts(self, port: int) -> bool:
        try:
            connection = await connect(port, user=OWNER, password=self.password)
        except asyncpg.InvalidPasswordError as error:
            raise Misconfigured(
                f"The database {str(self.places.cluster)!r} has another password than the one in "
                f"{str(self.places.secrets)!r}: restore that folder, or move both away to begin empty."
            ) from error
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return False  # not listening yet, or still recovering
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await connection.close()
        return True


def forget_foreign_pid(cluster: Path) -> None:
    """Removes a `postmaster.pid` whose number belongs to a stranger by now.

    PostgreSQL itself forgets the pid of a dead process, but takes any living one for a server.
    """
    lock = cluster / "postmaster.pid"
    try:
        pid = int(lock.read_text(encoding="utf-8").split("\n", 1)[0])
    except FileNotFoundError:
        return
    except ValueError:
        pid = 0  # cut short by a full disk or a power failure: PostgreSQL would refuse it
    if pid == 0 or (psutil.pid_exists(pid) and not find_leftovers("postgres", cluster)):
        lock.unlink(missing_ok=True)


def _shared_memory() -> dict[str, str]:
    """Parallel index builds need more than the 64 MB of /dev/shm that containers usually have."""
    try:
        space = os.statvfs("/dev/shm")  # noqa: S108  not a temporary file
    except OSError:
        return {}
    if space.f_blocks * space.f_frsize < _SHARED_MEMORY_BYTES:
        return {"dynamic_shared_memory_type": "mmap"}
    return {}
