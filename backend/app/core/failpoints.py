"""Named points at which a test kills, freezes or fails this process, set by `ORRERY_FAILPOINTS`.

    ORRERY_FAILPOINTS="ingest.embedded=kill:3;intake.registered=sleep:2;ingest.parsed@report=error"

An entry is `point[@text]=action[:argument]`; with `@text` it counts only hits whose subject contains the
text. Actions: `kill[:n]` SIGKILL to this process at the n-th hit · `error[:n]` raises `FailpointError`, the
first n times · `sleep:seconds` and `hang` freeze the whole process, as SIGSTOP does · `pause:FILE` freezes
it if somebody has put FILE there: FILE is renamed to `FILE.held`, holding our process id, and we go on once
that is gone.
Without the setting a point costs one look at an empty dictionary.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import structlog

logger = structlog.get_logger(__name__)

POINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "intake.begun": "what will collect the bytes of a broken upload is committed, no byte is stored",
        "intake.blob_stored": "the bytes of one document are stored",
        "intake.registering": "all rows of an upload are written, not committed",
        "intake.registered": "an upload is committed and its queue woken, not answered",
        "queue.waking": "work is committed, its queue not woken",
        "queue.woken": "the message is with the broker",
        "queue.sweeping": "the sweeper is about to look for queues whose work waits",
        "drain.claiming": "items are claimed, not committed",
        "drain.claimed": "claims are committed, no handler has begun",
        "drain.settling": "an item has failed, which is not stored yet",
        "drain.settled": "the failure of an item is stored",
        "lease.released": "a worker has freed what its dead predecessor held",
        "lease.given_back": "the items of a worker that was stopped are back in their queue",
        "ingest.beginning": "a document is shown as being worked on, not committed",
        "ingest.begun": "that is committed",
        "ingest.parsing": "the parsed text is written, not committed",
        "ingest.parsed": "that is committed",
        "ingest.chunking": "the chunks are written, not committed",
        "ingest.chunked": "that is committed",
        "ingest.embedding": "a batch of vectors is written, not committed; the last batch comes below",
        "ingest.embedded": "that is committed",
        "ingest.indexing": "the last batch is written, not committed",
        "ingest.publishing": "a version is shown to search and its item ended, not committed",
        "ingest.published": "that is committed",
        "ingest.failing": "a document's final failure is written, not committed",
        "ingest.failed": "that is committed",
        "reweigh.begun": "the new average length of an index is committed",
        "reweigh.stored": "the new weights of some chunks are committed",
        "job.cancelling": "what was open of a job is cancelled, not committed",
        "job.retrying": "what failed of a job is queued again, not committed",
        "delete.marking": "a document is hidden and its work cancelled, not committed",
        "erase.hiding": "the vectors of a deleted document are removed, not committed",
        "erase.hidden": "that is committed, its bytes are still there",
        "erase.blobs_gone": "the bytes are gone, the rows are still there",
        "erase.ending": "the rows are removed and the item ended, not committed",
        "erase.ended": "that is committed",
        "erase.collection": "a step of a collection's erasure is written, not committed",
        "erase.agent": "some runs of a deleted agent are erased, not committed",
        "erase.blob_gone": "the bytes of an older version are gone, the item is open",
        "erase.upload_gone": "the bytes of a broken upload are gone, the item is open",
        "run.creating": "the row of a run is written, not committed",
        "run.created": "the run is committed and leased to us, not started",
        "run.started": "the task of the run has begun",
        "run.finishing": "the run has an outcome, which is not stored yet",
        "run.finished": "the outcome is stored",
        "run.claimed": "a run that nobody executed is leased to us, and not begun",
        "events.storing": "a batch of run events is about to be stored",
        "events.stored": "that is committed",
        "journal.storing": "a batch with a step of the journal is about to be stored",
        "journal.stored": "that is committed",
    }
)
ACTIONS: Final = ("kill", "error", "sleep", "hang", "pause")

_ENTRY = re.compile(r"(?P<point>[^@=;]+)(?:@(?P<text>[^=;]+))?=(?P<action>[a-z]+)(?::(?P<argument>[^;]+))?")
_COUNT = r"([1-9]\d{0,8})?"
_FROZEN_AT_MOST_S = 300
_POLL_S = 0.005


class FailpointError(Exception):
    """The unexpected error that the action `error` raises."""


@dataclass(slots=True)
class Trap:
    """What one entry of the setting does at its point."""

    point: str
    text: str
    action: str
    argument: str
    hits: int = 0

    def spring(self, subject: str) -> None:
        if self.text not in subject:
            return
        self.hits += 1
        match self.action:
            case "kill" if self.hits == int(self.argument or 1):
                os.kill(os.getpid(), signal.SIGKILL)
            case "error" if self.hits <= int(self.argument or self.hits):
                raise FailpointError(f"failpoint {self.point}")
            case "sleep":
                time.sleep(float(self.argument))
            case "hang":
                time.sleep(_FROZEN_AT_MOST_S)
            case "pause":
                _pause(Path(self.argument))


_armed: dict[str, list[Trap]] = {}


def failpoint(name: str, subject: str = "") -> None:
    """The place called `name`, which must be one of `POINTS`; `subject` says what it is about."""
    if _armed:
        for trap in _armed.get(name, ()):
            trap.spring(subject)


def arm(setting: str) -> None:
    """Sets this process's failpoints, all others off. `ValueError` as `read_traps`."""
    _armed.clear()
    for trap in read_traps(setting):
        _armed.setdefault(trap.point, []).append(trap)
    if _armed:
        logger.warning("failpoints_active", points=sorted(_armed))


def read_traps(setting: str) -> list[Trap]:
    """The entries of a setting. `ValueError` names what is wrong and the valid choices."""
    return [_read(entry.strip()) for entry in setting.split(";") if entry.strip()]


def _read(entry: str) -> Trap:
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError(f"{entry!r} is not of the form point[@text]=action[:argument]")
    point, text, action, argument = (part or "" for part in found.groups())
    if point not in POINTS:
        raise ValueError(f"there is no failpoint {point!r}; valid: {', '.join(sorted(POINTS))}")
    if action not in ACTIONS:
        raise ValueError(f"there is no action {action!r}; valid: {', '.join(ACTIONS)}")
    if not _fits(action, argument):
        raise ValueError(f"{entry!r}: {_ARGUMENTS[action]}")
    return Trap(point, text, action, argument)


_ARGUMENTS: Final = {
    "kill": "kill takes the number of the hit, from 1 (by default the first)",
    "error": "error takes how many hits it fails, from 1 (by default all)",
    "sleep": "sleep takes seconds",
    "hang": "hang takes no argument",
    "pause": "pause takes the path of a file",
}


def _fits(action: str, argument: str) -> bool:
    patterns = {"kill": _COUNT, "error": _COUNT, "sleep": r"\d{1,6}(\.\d{1,6})?", "pause": ".+"}
    return re.fullmatch(patterns.get(action, ""), argument) is not None


def _pause(file: Path) -> None:
    held = file.with_name(f"{file.name}.held")
    try:
        file.rename(held)  # of several processes one gets it
    except FileNotFoundError:
        return
    held.write_text(str(os.getpid()))
    until = time.monotonic() + _FROZEN_AT_MOST_S
    while held.exists() and time.monotonic() < until:
        time.sleep(_POLL_S)
