"""Child processes that do not outlive us, launched with fewer rights and stopped politely first."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from signal import Signals
from typing import BinaryIO

from app.core.errors import Misconfigured
from app.core.processes import die_with
from app.embedded.account import Account

_LOG_BYTES = 10 * 2**20
_POLL_S = 0.02
_KILL_S = 5.0

StopStep = tuple[Signals, float]


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and how; `log` receives its output, `death_signal` reaches it when we die (Linux)."""

    argv: tuple[str, ...]
    cwd: Path
    log: Path
    account: Account | None
    death_signal: Signals


def launch(command: Command) -> subprocess.Popen[bytes]:
    """Starts `command` in its own session, as `command.account`, with a bare environment.

    To be called from the event loop's thread: the death signal is sent when the forking *thread* ends.

    Raises:
        Misconfigured: the program cannot be executed, or the user cannot be changed.
    """
    account = command.account
    with _open_log(command.log) as log:
        try:
            return subprocess.Popen(
                command.argv,
                cwd=command.cwd,
                env={"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=account.uid if account else None,
                group=account.gid if account else None,
                extra_groups=[] if account else None,
                preexec_fn=die_with(os.getpid(), command.death_signal),
            )
        except (OSError, subprocess.SubprocessError) as error:
            who = f"user {account.name!r}" if account else f"user id {os.geteuid()}"
            raise Misconfigured(
                f"{command.argv[0]!r} cannot be started by {who} ({error}): {_remedy(command, error)}, "
                "or set ORRERY_DATABASE_URL and ORRERY_REDIS_URL to services of your own."
            ) from error


def _remedy(command: Command, error: Exception) -> str:
    program = command.argv[0]
    if isinstance(error, OSError) and error.errno == errno.ENOEXEC:
        return "it is built for another kind of machine: install the packages again on this one"
    if isinstance(error, OSError) and error.errno == errno.ENOENT:
        return "install the packages again"
    if os.path.exists(program) and os.statvfs(program).f_flag & os.ST_NOEXEC:
        return "its file system is mounted noexec: move Orrery to another or mount that one with exec"
    return "start Orrery as an ordinary user"


def _open_log(path: Path) -> BinaryIO:
    if path.exists() and path.stat().st_size > _LOG_BYTES:
        path.replace(path.with_name(f"{path.name}.1"))
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab")


async def exited(process: subprocess.Popen[bytes], *, timeout_s: float, poll_s: float = _POLL_S) -> bool:
    """Whether `process` ends within `timeout_s`. Polls, so it works under every event loop."""
    deadline = asyncio.get_running_loop().time() + timeout_s
    while process.poll() is None:
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(poll_s)
    return True


async def stop(process: subprocess.Popen[bytes], steps: tuple[StopStep, ...]) -> None:
    """Sends each signal and waits its number of seconds; kills what is left."""
    for number, patience_s in steps:
        if process.poll() is not None:
            return
        process.send_signal(number)
        if await exited(process, timeout_s=patience_s):
            return
    process.kill()
    await exited(process, timeout_s=_KILL_S)
