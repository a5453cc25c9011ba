"""A recorded run done again: what was pure is worked out anew, all else is answered from the record.

The recorded events are the score: each is told when the engine has come to it and says the same (ids and
times apart), in the order of then. So the order, the ways taken and every value are worked out, not copied.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

from app.agent.core.interfaces import StepRecord
from app.agent.graph.plan import PlannedNode
from app.agent.graph.recording import (
    RecordedEvent,
    Recording,
    difference,
    in_short,
    is_told_by_the_process,
    lost_tries,
    same,
)
from app.core.errors import AppError
from app.core.tasks import end

_LOOK_EVERY_S = 0.25

Result = TypeVar("Result")


class ReplayDiverged(AppError):
    """The version does something else than the run that was recorded."""

    status, code, title = 409, "replay_diverged", "The replay came to something else"


class RecordEnds(AppError):
    """Nothing more was recorded. `event` is the terminal one, if it was not the engine that told it."""

    code = "record_ends"

    def __init__(self, event: RecordedEvent | None) -> None:
        super().__init__("the record ends here")
        self.event = event


async def _nothing() -> None:
    return None


@dataclass(slots=True)
class Worked:
    """What a node read, by reference, and what it handed on, once it has ended."""

    read: Mapping[str, Any]
    output: Mapping[str, Any] | None = None


@dataclass(slots=True)
class Replay:
    """One replay. Implements `EventSink` and `Journal` of the engine.

    `tell` is given each event with its place (from 0) once it is due; `relieve` is called now and then, and
    may wait until what was told is dealt with. `worked` has, by its path, how often a node began.
    """

    recording: Recording
    tell: Callable[[int, RecordedEvent], None]
    relieve: Callable[[], Awaitable[None]] = _nothing
    worked: dict[str, list[Worked]] = field(default_factory=dict)
    due: list[bool] = field(init=False)
    open: dict[str, deque[int]] = field(init=False)
    begun: dict[str, str] = field(default_factory=dict)
    place: int = 0
    moves: int = 0
    working: int = 0
    failure: asyncio.Future[None] = field(init=False)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        events = self.recording.events
        self.failure = asyncio.get_running_loop().create_future()
        lost = lost_tries(events)
        self.due = [index in lost or is_told_by_the_process(event) for index, event in enumerate(events)]
        self.open = {}
        for index, event in enumerate(events):
            if not self.due[index]:
                self.open.setdefault(event.node_path, deque()).append(index)

    async def guarded(self, work: Coroutine[Any, Any, Result]) -> Result:
        """The result of `work`, which replays. Raises `ReplayDiverged`, and `RecordEnds` where it waits for
        what was not recorded."""
        task = asyncio.create_task(work)
        stalled = 0
        try:
            while not task.done() and not self.failure.done():
                before = self.moves
                waited: set[asyncio.Future[Any]] = {task, self.failure}
                await asyncio.wait(waited, timeout=_LOOK_EVERY_S, return_when="FIRST_COMPLETED")
                stalled = stalled + 1 if self.moves == before and not self.working else 0
                if stalled > 1 and not task.done() and not self.failure.done():
                    raise self._stalled()
            if self.failure.done():
                self.failure.result()
            return await task
        finally:
            await end(task)
            self.failure.cancel()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Something is on its way that the engine waits for."""
        self.working += 1
        try:
            yield
        finally:
            self.working -= 1
            self.moves += 1

    def begin(self, path: str, read: Mapping[str, Any]) -> Worked:
        """Notes that a node begins, and what it reads."""
        self.moves += 1
        worked = Worked(read)
        self.worked.setdefault(path, []).append(worked)
        return worked

    def answers(self, node: PlannedNode, path: str) -> bool:
        """Whether what the node did is taken from the record, instead of being worked out anew."""
        return node.journalled and not (node.holds_graphs and self.recording.shows_inside_of(path))

    async def again(self, path: str, visit: int, *, asked: str) -> StepRecord:
        """What the node at `path` did then, told again. Waits for ever where it had not come to an end."""
        done = self.recording.steps.get((path, visit, 0))
        if done and done.request_hash not in (None, asked):
            await self._fail(f"node {path!r} is asked something else than was recorded")
        ended = done is not None and done.ended
        last = self._claim_all(path, ended=ended)
        if done is None or not ended or last is None:
            await self._for_ever()
        await self._passed(last)
        return done

    def told_before(self, path: str, visit: int) -> StepRecord | None:
        """What the node did at an earlier visit, where that counted for this one: nothing was told again."""
        if (path, visit, 0) in self.recording.steps:
            return None
        for before in range(visit - 1, 0, -1):
            known = self.recording.steps.get((path, before, 0))
            if known and known.ended and known.output is not None:
                return known
        return None

    def _claim_all(self, path: str, *, ended: bool) -> int | None:
        """Everything of a node, and of what is inside of it, up to its end is due; the place of that.

        Of a visit that was given up, it is all until the node begins anew.
        """
        events = self.recording.events
        if ended:
            last = next((i for i in self.open.get(path, ()) if events[i].ends_a_node), None)
        else:
            begins = [i for i in self.open.get(path, ()) if events[i].begins_a_node]
            last = begins[1] - 1 if len(begins) > 1 else None
        inside = self.recording.inside.get(path, ())
        for places in (self.open.get(name, deque()) for name in (path, *inside)):
            while places and (last is None or places[0] <= last):
                self.due[places.popleft()] = True
        self._advance()
        return last

    async def emit(self, event: Any, *, node_path: str = "") -> None:
        """Returns when it is the event's turn, and it was recorded."""
        self.moves += 1
        told = self._whole(RecordedEvent.of(event, node_path))
        places = self.open.get(node_path)
        while True:
            if not places:
                await self._beyond(told)
            index = places[0]
            recorded = self.recording.events[index]
            if same(recorded, told):
                break
            if told.starts(recorded):
                self.begun[node_path] = told.delta
                return
            if not recorded.starts(told):
                await self._fail(f"at event {index + 1}: {difference(recorded, told)}")
            self._due(places)
            told = told.without(recorded)
        self._due(places)
        await self._passed(index)

    def _whole(self, told: RecordedEvent) -> RecordedEvent:
        """With what was told before of a delta that was recorded as one."""
        return told.after(self.begun.pop(told.node_path, ""))

    def _due(self, places: deque[int]) -> None:
        self.due[places.popleft()] = True
        self._advance()

    async def _beyond(self, told: RecordedEvent) -> NoReturn:
        """Whoever ended the run from outside did so before this could be told."""
        if self.recording.failed:
            await self._for_ever()
        await self._fail(f"now {in_short(told)}, where nothing was recorded")

    def recall(self, node_path: str, visit: int, call: int) -> StepRecord | None:
        return None

    async def ready(self) -> None:
        return None

    async def began(self, step: StepRecord) -> None:
        return None

    async def finished(self, step: StepRecord, event: Any = None) -> None:
        if event is not None:
            await self.emit(event, node_path=step.node_path)

    def _advance(self) -> None:
        before = self.place
        while self.place < len(self.due) and self.due[self.place]:
            self.tell(self.place, self.recording.events[self.place])
            self.place += 1
        if self.place > before:
            self.moved.set()
            self.moved = asyncio.Event()

    async def _passed(self, index: int) -> None:
        while self.place <= index:
            await self.moved.wait()
        self.moves += 1
        await self.relieve()

    async def _fail(self, message: str) -> NoReturn:
        if not self.failure.done():
            self.failure.set_exception(ReplayDiverged(message))
        await self._for_ever()

    async def _for_ever(self) -> NoReturn:
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    def _stalled(self) -> AppError:
        if self.place == len(self.due):
            return RecordEnds(None)
        waited_for = self.recording.events[self.place]
        if waited_for.type == "RUN_ERROR":
            self.tell(self.place, waited_for)
            return RecordEnds(waited_for)
        return ReplayDiverged(
            f"at event {self.place + 1}: recorded {in_short(waited_for)}, which does not come"
        )
