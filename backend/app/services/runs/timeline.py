"""The timeline of a run: what each node read, did and gave, in the order in which they began."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from app.agent.core.interfaces import StepRecord
from app.agent.graph.ports import RunFailed
from app.agent.graph.recording import RecordedEvent, Recording
from app.agent.graph.replaying import RecordEnds, Replay, ReplayDiverged, Worked
from app.services.runs.execution import Execution
from app.services.runs.outfit import Outfit
from app.services.runs.replays import played


@dataclass(slots=True)
class TimelineEntry:
    """One node once. `seq` is the event that it began with; times are in milliseconds.

    `status` is `running` while it has not ended, and `lost` where the process died and the node was begun
    anew. `inputs` are the values that it read, by reference, and `output` what it gave; null where they
    cannot be worked out. `retries` are the attempts after the first, `calls` those of models and tools that
    were journalled for themselves.
    """

    seq: int
    node_path: str
    node_type: str
    started_at_ms: int
    status: str = "running"
    handle: str | None = None
    attempts: int = 1
    duration_ms: float | None = None
    cached: bool = False
    taken_from: str | None = None
    inputs: Mapping[str, Any] | None = None
    output: Mapping[str, Any] | None = None
    usage: Mapping[str, Any] | None = None
    error: Mapping[str, Any] | None = None
    retries: list[Mapping[str, Any]] = field(default_factory=list)
    calls: Sequence[StepRecord] = ()


@dataclass(frozen=True, slots=True)
class Timeline:
    """`incomplete` says why some inputs and outputs are missing."""

    entries: list[TimelineEntry]
    incomplete: str | None = None


@dataclass(frozen=True, slots=True)
class TimelineLimits:
    """How many events a run may have, and how long it may take, to work out what its nodes read and gave."""

    events: int = 20_000
    timeout_s: float = 10


async def timeline_of(
    recording: Recording, execution: Execution, outfit: Outfit, limits: TimelineLimits
) -> Timeline:
    """Reads the log, and works out from it, as a replay does that tells nobody, what nodes read and gave."""
    replay = Replay(recording, lambda place, event: None)
    if len(recording.events) > limits.events:
        incomplete: str | None = f"the run told more than {limits.events} events (ORRERY_RUN_TIMELINE_EVENTS)"
    else:
        incomplete = await _worked_out(replay, execution, outfit, limits)
    entries = _entries(recording.events)
    _add_journal(entries, recording)
    _add_worked(entries, replay.worked)
    return Timeline(entries, incomplete)


async def _worked_out(
    replay: Replay, execution: Execution, outfit: Outfit, limits: TimelineLimits
) -> str | None:
    """Fills `replay.worked`; why not wholly, if so."""
    try:
        with suppress(RunFailed, RecordEnds):
            async with asyncio.timeout(limits.timeout_s):
                await played(replay, execution, outfit)
    except ReplayDiverged as error:
        return error.detail
    except TimeoutError:
        return f"it takes longer than {limits.timeout_s:g} s (ORRERY_RUN_TIMELINE_TIMEOUT_S)"
    return None


def _entries(events: Iterable[RecordedEvent]) -> list[TimelineEntry]:
    entries: list[TimelineEntry] = []
    begun: dict[str, TimelineEntry] = {}
    for seq, event in enumerate(events, start=1):
        path, value = event.node_path, event.body.get("value")
        entry = begun.get(path)
        match event.name:
            case "node.started" if isinstance(value, dict):
                if entry is not None:
                    entry.status = "lost"
                begun[path] = TimelineEntry(seq, path, value["node_type"], event.at_ms)
                entries.append(begun[path])
            case "retry" if entry is not None and isinstance(value, dict):
                entry.retries.append(value)
            case "node.finished" if entry is not None and isinstance(value, dict):
                del begun[path]
                _end(entry, value)
    return entries


def _end(entry: TimelineEntry, told: Mapping[str, Any]) -> None:
    entry.status, entry.attempts = told["status"], told["attempts"]
    entry.handle, entry.duration_ms = told.get("handle"), told["duration_ms"]
    entry.usage, entry.error = told.get("usage"), told.get("error")
    entry.cached, entry.taken_from = bool(told.get("cached")), told.get("taken_from")


def _add_journal(entries: Iterable[TimelineEntry], recording: Recording) -> None:
    """Calls, and usage by model."""
    latest = {entry.node_path: entry for entry in entries}
    calls: dict[str, list[StepRecord]] = {}
    for (path, _, call), step in sorted(recording.steps.items()):
        if call:
            calls.setdefault(path, []).append(step)
        elif path in latest and step.usage:
            latest[path].usage = step.usage
    for path, found in calls.items():
        if path in latest:
            latest[path].calls = found


def _add_worked(entries: Iterable[TimelineEntry], worked: Mapping[str, Sequence[Worked]]) -> None:
    """What was worked out of the n-th time that a node began and was not lost."""
    times: dict[str, int] = {}
    for entry in entries:
        if entry.status == "lost":
            continue
        place = times.get(entry.node_path, 0)
        times[entry.node_path] = place + 1
        found = worked.get(entry.node_path, ())
        if place < len(found):
            entry.inputs, entry.output = found[place].read, found[place].output
