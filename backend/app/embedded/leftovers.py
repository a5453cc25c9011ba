"""Services of a platform that was killed: found by name and working folder, then stopped."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from pathlib import Path
from signal import Signals

import psutil
import structlog

_POLL_S = 0.05
_INTERRUPTED_S = 15.0
_KILLED_S = 5.0

log = structlog.get_logger(__name__)


def find_leftovers(name: str, folder: Path) -> list[psutil.Process]:
    """Running programs called `name` whose working folder is `folder`.

    A pid file alone may name a stranger that got the number later; both servers keep their data folder
    as working folder for life, and so do PostgreSQL's backends.
    """
    return [process for process in psutil.process_iter() if _is(process, name, folder)]


def _is(process: psutil.Process, name: str, folder: Path) -> bool:
    try:
        return process.name() == name and process.cwd() == str(folder)
    except psutil.Error:
        return False


def find_workers(data: Path, owner: str) -> list[psutil.Process]:
    """Workers, and what they started, that were told to work on `data` as `owner`."""
    return [process for process in psutil.process_iter() if _works_on(process, data, owner)]


def _works_on(process: psutil.Process, data: Path, owner: str) -> bool:
    try:
        environment = process.environ()
    except psutil.Error:
        return False
    told = (environment.get("ORRERY_DATA_DIR"), environment.get("ORRERY_WORKER_ID"))
    return told == (str(data), owner) and process.pid != os.getpid()


async def end_leftovers(name: str, folder: Path, *, polite: Signals, firm: Signals) -> None:
    """Stops what `find_leftovers` finds."""
    await end_processes(find_leftovers(name, folder), name=name, polite=polite, firm=firm)


async def end_processes(
    found: Sequence[psutil.Process], *, name: str, polite: Signals, firm: Signals
) -> None:
    """Stops leftovers: `polite` to the parents, then `firm` to all, then kill."""
    if not found:
        return
    log.warning("leftover processes of an earlier start are stopped", service=name, pids=_pids(found))
    pids = set(_pids(found))
    heads = [process for process in found if _parent(process) not in pids]
    for targets, number, patience_s in (
        (heads, polite, _INTERRUPTED_S),
        (found, firm, _KILLED_S),
        (found, Signals.SIGKILL, _KILLED_S),
    ):
        _signal(targets, number)
        if await _gone(found, timeout_s=patience_s):
            return


def _pids(processes: Sequence[psutil.Process]) -> list[int]:
    return [process.pid for process in processes]


def _parent(process: psutil.Process) -> int | None:
    try:
        return process.ppid()
    except psutil.Error:
        return None


def _signal(processes: Sequence[psutil.Process], number: Signals) -> None:
    for process in processes:
        try:
            process.send_signal(number)  # psutil compares start times first: never a reused pid
        except psutil.Error:
            continue


async def _gone(processes: Sequence[psutil.Process], *, timeout_s: float) -> bool:
    deadline = asyncio.get_running_loop().time() + timeout_s
    while any(runs(process) for process in processes):
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def runs(process: psutil.Process) -> bool:
    """Whether `process` is alive; a zombie that nobody reaps is not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
