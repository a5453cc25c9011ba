"""What the operator reads when the services do not start: one sentence, with the remedy."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.core.errors import Misconfigured

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_TAIL_BYTES = 4096
_TAIL_LINES = 4
_ROOM_BYTES = 2**20
_FATAL = (" PANIC:", " FATAL:")
_NOT_YET = "the database system is"  # starting up, shutting down: what callers are told meanwhile
_DAMAGED = (
    "checkpoint record",
    "pg_control",
    "pg_filenode.map",
    "invalid data in file",
    "files are incompatible",
)


class DiedAtStart(Misconfigured):
    """The service ended before it answered; another port or a second try may help."""


class DiskFull(DiedAtStart):
    """There was no room to start in: it works again as soon as somebody frees some."""


class ServiceLost(Misconfigured):
    """A service of ours kept dying, and nobody starts it any more."""


@contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """Translates operating-system errors inside the block.

    Raises:
        Misconfigured: disk full, folder not writable, or not usable for another reason.
    """
    try:
        yield
    except OSError as error:
        raise Misconfigured(_sentence(error, data_dir)) from error


def _sentence(error: OSError, data_dir: Path) -> str:
    place = str(error.filename or data_dir)
    if error.errno in _FULL:
        return f"The disk is full at {place!r}: free some space and start again."
    reason = error.strerror or str(error)
    if error.errno in _FORBIDDEN:
        return (
            f"User id {os.geteuid()} may not write {place!r} ({reason}): "
            "change its owner, or set ORRERY_DATA_DIR to a folder of this user."
        )
    return (
        f"The data folder {str(data_dir)!r} cannot be used ({reason}: {place!r}): "
        "repair it, or set ORRERY_DATA_DIR to another folder."
    )


def start_failure(what: str, *, log: Path, offset: int) -> DiedAtStart:
    """A service that did not start: `what` happened, its last words, what to do."""
    lines = _lines(log, offset=offset)
    words, all_words = _telling(lines), " ".join(lines).lower()
    if os.strerror(errno.ENOSPC).lower() in all_words or is_full(log.parent):
        # the last words may not have fitted, too
        said = words or os.strerror(errno.ENOSPC)
        return DiskFull(f"{what} ({said}): free some disk space and start again.")
    if any(mark in all_words for mark in _DAMAGED):
        remedy = f"its files are damaged: restore them from a backup (more in {str(log)!r})"
    else:
        remedy = f"see {str(log)!r} and start again"
    return DiedAtStart(f"{what} ({words or 'it logged nothing'}): {remedy}.")


def is_full(folder: Path) -> bool:
    """Whether an ordinary user can write next to nothing on the file system of `folder`."""
    space = os.statvfs(folder)
    return space.f_bavail * space.f_frsize < _ROOM_BYTES or (space.f_files > 0 and space.f_favail == 0)


def log_end(log: Path) -> int:
    """How many bytes `log` has: what a service says from now on comes after them."""
    return log.stat().st_size if log.exists() else 0


def last_lines(log: Path, *, offset: int) -> str:
    """The last few lines written to `log` after byte `offset`, joined by ` | `."""
    return " | ".join(_lines(log, offset=offset)[-_TAIL_LINES:])


def _lines(log: Path, *, offset: int) -> list[str]:
    with log.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(offset, size - _TAIL_BYTES) if size >= offset else 0)
        lines = stream.read().decode(errors="replace").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _telling(lines: list[str]) -> str:
    """The last ones, up to PostgreSQL's first fatal line: afterwards it only says that it ends."""
    fatal = (
        number
        for number, line in enumerate(lines, start=1)
        if any(mark in line for mark in _FATAL) and _NOT_YET not in line
    )
    end = next(fatal, len(lines))
    return " | ".join(lines[max(0, end - _TAIL_LINES) : end])
