"""What runs: the platform itself, its port, what a killed one left, and how the last one ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import psutil

from app.cli.client import ApiError, readiness
from app.cli.crash import read_crash
from app.cli.doctor.finding import Finding, fail, ok, warn
from app.cli.doctor.subject import NOTHING_RUNS, Subject
from app.embedded import find_leftovers, find_workers, lock_left_by, why_not_listen
from app.services.runs.leases import LOCAL

_ANSWER_S = 5.0
_TAIL_BYTES = 2**16
_BAD_ENDS = ("PANIC:", "was terminated by signal", "No space left on device", "REDIS BUG REPORT", "# Failed")


def platform_answers(subject: Subject) -> Iterator[Finding]:
    if subject.unreadable:
        yield fail(subject.unreadable, "restart 'orrery serve' with this version")
    elif subject.running is None:
        yield ok(NOTHING_RUNS)
    else:
        yield _ready(subject.running.api_url, subject.running.pid)


def _ready(url: str, pid: int) -> Finding:
    try:
        status, state = readiness(url, timeout_s=_ANSWER_S)
    except ApiError:
        return fail(
            f"process {pid} should serve {url}, but does not answer",
            "look into its log; if it hangs, end it and start 'orrery serve' again",
        )
    if status == 200:
        return ok(f"process {pid} serves {url} and is ready")
    wrong = ", ".join(f"{name}: {what}" for name, what in state.get("checks", {}).items() if what != "ok")
    return fail(f"process {pid} at {url} is {state.get('status')} ({wrong})", "see the other findings")


def port_is_free(subject: Subject) -> Iterator[Finding]:
    host, port = subject.settings.host, subject.settings.port
    if subject.running is not None or port == 0:
        return
    if reason := why_not_listen(host, port):
        yield fail(
            f"{host}:{port} cannot be listened on ({reason}){_taken_by(port)}",
            "end that, or set ORRERY_PORT (ORRERY_HOST) to another",
        )
    else:
        yield ok(f"{host}:{port} is free for the API")


def _taken_by(port: int) -> str:
    try:
        listening = [e for e in psutil.net_connections(kind="tcp") if e.status == psutil.CONN_LISTEN]
        pids = {e.pid for e in listening if e.pid and e.laddr and e.laddr.port == port}
        return "".join(f": process {pid} ({psutil.Process(pid).name()})" for pid in sorted(pids))
    except psutil.Error:
        return ""


def nothing_is_left(subject: Subject) -> Iterator[Finding]:
    """Processes of a killed platform keep files and memory until the next start ends them."""
    if subject.running is not None or not subject.data.is_dir():
        return
    cluster = (subject.data / "postgres").resolve()
    found = [
        *find_leftovers("postgres", cluster),
        *find_leftovers("redis-server", cluster.parent / "redis"),
        *find_workers(subject.data, f"{LOCAL}:worker"),
    ]
    killed = lock_left_by(subject.data / "run" / "lock")
    if found:
        pids = ", ".join(str(process.pid) for process in found)
        yield warn(f"a platform was killed and left processes: {pids}", "the next 'orrery serve' ends them")
    elif killed:
        yield warn(f"the last platform (process {killed}) was killed", "the next 'orrery serve' repairs that")
    else:
        yield ok("nothing is left of an earlier platform")


def last_end_was_good(subject: Subject) -> Iterator[Finding]:
    crash = read_crash(subject.settings)
    started = subject.running.started_at if subject.running else None
    if crash and (started is None or crash.at > started):
        when = crash.at.astimezone().isoformat(timespec="seconds")
        yield warn(
            f"the last 'orrery serve' crashed at {when}: {crash.reason}", "repair that, and start again"
        )
    for name in ("postgresql.log", "redis.log"):
        log = subject.data / "logs" / name
        try:
            with log.open("rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                lines = stream.read().decode(errors="replace").splitlines()
            written = datetime.fromtimestamp(log.stat().st_mtime, UTC)
        except OSError:
            continue
        bad = [line for line in lines if any(mark in line for mark in _BAD_ENDS)]
        if bad:
            yield warn(
                f"{name} (last written {written:%Y-%m-%d %H:%M} UTC) says: {bad[-1][:200]}", f"see {log}"
            )
