"""One running platform per data folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import Misconfigured


def lock_left_by(path: Path) -> str:
    """The pid of a process that held `path` and was killed; empty where it ended in order or still runs."""
    held, pid = _look(path)
    return "" if held else pid


def lock_holder(path: Path) -> str:
    """The pid of the process that holds `path` now; empty if none does."""
    held, pid = _look(path)
    return pid if held else ""


def _look(path: Path) -> tuple[bool, str]:
    """Whether `path` is held, and the pid in it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False, ""
    try:
        pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False, pid
    except BlockingIOError:
        return True, pid
    finally:
        os.close(descriptor)


@contextmanager
def hold_lock(path: Path) -> Iterator[None]:
    """Holds `path` exclusively (flock) until the block ends or the process dies; the file stays.

    Raises:
        Misconfigured: another process holds it; the message names its pid.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Misconfigured(
                f"Orrery already runs here as process {holder}, which holds {str(path)!r}: "
                "stop it, or set ORRERY_DATA_DIR to another folder."
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
