"""One run's part of the group commit: what it told and did and is not stored yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import time
from typing import Any, Protocol
from uuid import UUID

from ag_ui.core import TextMessageContentEvent, ToolCallArgsEvent

from app.agent.core.interfaces import StepKey, StepRecord, Usage
from app.agent.core.interrupts import Interrupt
from app.core.errors import AppError, Unavailable
from app.db.base import Json
from app.services.runs.leases import Lease
from app.services.runs.logged_event import TERMINAL, LoggedEvent
from app.services.runs.stored_json import event_json, stored_json

_DELTA = "TEXT_MESSAGE_CONTENT"
_ARGUMENTS = "TOOL_CALL_ARGS"
_NAMED_BY = {_DELTA: "messageId", _ARGUMENTS: "toolCallId"}
_BACKLOG = 10_000


class FencedOff(AppError):
    """Another process holds the run: nothing of ours is stored any more."""

    code = "fenced_off"


@dataclass(slots=True)
class Telling:
    """An event on its way into the log. Deltas of one message, or of one tool call's arguments, are joined
    until they are stored; `part_of` is its id."""

    node_path: str
    ts: float
    type: str
    text: str = ""
    part_of: str = ""
    deltas: list[str] = field(default_factory=list)

    def joins(self, other: Telling) -> bool:
        """Whether `other` is more of the same."""
        same = (self.type, self.part_of, self.node_path) == (other.type, other.part_of, other.node_path)
        return bool(self.part_of) and same

    def body(self) -> str:
        """The AG-UI event as JSON that PostgreSQL takes."""
        if not self.deltas:
            return self.text
        delta = {"type": self.type, _NAMED_BY[self.type]: self.part_of, "delta": "".join(self.deltas)}
        return stored_json(delta) or ""


def telling(event: Any, node_path: str) -> Telling:
    """`event` is an AG-UI event."""
    if isinstance(event, TextMessageContentEvent):
        return Telling(node_path, time(), _DELTA, part_of=event.message_id, deltas=[event.delta])
    if isinstance(event, ToolCallArgsEvent):
        return Telling(node_path, time(), _ARGUMENTS, part_of=event.tool_call_id, deltas=[event.delta])
    return Telling(node_path, time(), event.type.value, event_json(event))


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run leaves this process: ended, or `queued` again. `event` is its one terminal event, as JSON.

    With `pause_s` it is claimed so much later, as if its process had died. A suspended one is claimed at
    `due_ms` (milliseconds since the Unix epoch, None for never), or at once where it was given more `answers`
    than this process has seen.
    """

    status: str
    event: str | None = None
    type: str = ""
    output: Json | None = None
    error: Json | None = None
    usage: Json | None = None
    pause_s: float | None = None
    due_ms: int | None = None
    answers: int = 0


@dataclass(frozen=True, slots=True)
class InterruptRow:
    """A question or a time as it is opened, or withdrawn; see `AgentRunInterrupt`."""

    interrupt: Interrupt
    status: str

    @property
    def key(self) -> UUID:
        return self.interrupt.id


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """A step, and the last event that was told by then; None where that is stored already."""

    step: StepRecord
    after: Telling | None

    @property
    def key(self) -> StepKey:
        return self.step.key


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """A checkpoint as it is stored; see `AgentRunCheckpoint`."""

    ns: str
    id: str
    parent_id: str | None
    body: bytes
    channels: bytes
    metadata: str

    @property
    def key(self) -> tuple[str, str]:
        return self.ns, self.id


@dataclass(frozen=True, slots=True)
class WriteRow:
    """What a task wrote; see `AgentRunCheckpointWrite`."""

    ns: str
    checkpoint_id: str
    task_id: str
    idx: int
    task_path: str
    channel: str
    value: bytes

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.ns, self.checkpoint_id, self.task_id, self.idx


@dataclass(slots=True)
class Pending:
    """What is stored together, or not at all."""

    events: list[Telling] = field(default_factory=list)
    steps: list[JournalEntry] = field(default_factory=list)
    checkpoints: list[CheckpointRow] = field(default_factory=list)
    writes: list[WriteRow] = field(default_factory=list)
    interrupts: list[InterruptRow] = field(default_factory=list)
    ending: Ending | None = None

    def __bool__(self) -> bool:
        rows = self.events or self.steps or self.checkpoints or self.writes or self.interrupts
        return bool(rows or self.ending)

    def followed_by(self, later: Pending) -> Pending:
        return Pending(
            self.events + later.events,
            self.steps + later.steps,
            self.checkpoints + later.checkpoints,
            self.writes + later.writes,
            self.interrupts + later.interrupts,
            later.ending or self.ending,
        )


class Writer(Protocol):
    """The group-commit writer, as a run's log knows it."""

    def mark(self, run: RunLog, *, urgent: bool = False) -> None: ...

    async def flush(self) -> None: ...


@dataclass(slots=True, eq=False)
class RunLog:
    """One run's sink (`EventSink`), and what else of it waits for the next commit.

    `seq` is that of the last event stored. The first `tried` events may be stored already, so they must be
    sent again just as they were. `fresh`: no checkpoint of the run is there; `channels` are what the
    saver kept last. `used`: what the run has used so far, by model; `asked`: what it waits for, or has;
    `answers`: how many answers to that were taken up since this process has the run; `hears` is called where
    there may be more. `finished_at` is set by the database once an ending was stored.
    """

    log: Writer
    lease: Lease
    seq: int = 0
    patience_s: float = 30
    pending: Pending = field(default_factory=Pending)
    tried: int = 0
    terminal: Telling | None = None
    channels: dict[tuple[str, str], tuple[Any, Any]] = field(default_factory=dict)
    fresh: bool = False
    used: dict[str, Usage] = field(default_factory=dict)
    asked: dict[UUID, Interrupt] = field(default_factory=dict)
    answers: int = 0
    hears: Callable[[], None] | None = None
    fenced_off: bool = False
    broken: Exception | None = None
    finished_at: datetime | None = None
    added: int = 0
    stored: int = 0
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    async def emit(self, event: Any, *, node_path: str = "") -> None:
        """Queues an AG-UI event; the terminal one is kept for the run's end."""
        self.tell(telling(event, node_path))
        await self.relieve()

    async def relieve(self) -> None:
        """Stores what is queued where that is too much."""
        if len(self.pending.events) > _BACKLOG:
            await self.log.flush()

    def tell(self, told: Telling) -> None:
        """Queues what is told; see `emit`."""
        if told.type in TERMINAL:
            self.terminal = told
            return
        if self.fenced_off:
            return
        events = self.pending.events
        if len(events) > self.tried and events[-1].joins(told):
            events[-1].deltas += told.deltas
        else:
            events.append(told)
        self._added()

    def record(self, step: StepRecord, event: Any = None) -> None:
        """Queues an entry of the journal and the event that tells it: both are stored, or neither."""
        if self.fenced_off:
            return
        events = self.pending.events
        if event is not None:
            events.append(telling(event, step.node_path))
        self.pending.steps.append(JournalEntry(step, events[-1] if events else None))
        self._added()

    def keep(self, checkpoints: Sequence[CheckpointRow], writes: Sequence[WriteRow] = ()) -> None:
        """Queues checkpoints and writes."""
        if not self.fenced_off and (checkpoints or writes):
            self.fresh = False
            self.pending.checkpoints.extend(checkpoints)
            self.pending.writes.extend(writes)
            self._added()

    def wait_for(self, row: InterruptRow, event: Any = None) -> None:
        """Queues what is opened or withdrawn, and the event that tells it."""
        if self.fenced_off:
            return
        if row.status == "open":
            self.asked[row.key] = row.interrupt
        self.pending.interrupts.append(row)
        if event is not None:
            self.pending.events.append(telling(event, row.interrupt.node_path))
        self._added()

    def hear(self) -> None:
        """Somebody may have answered."""
        if self.hears is not None:
            self.hears()

    def lose(self) -> None:
        """The run is another process's from now on."""
        self.fenced_off = True
        self.settle(self.added, FencedOff("another process holds the run"))

    async def leave(self, ending: Ending) -> None:
        """Stores everything and how the run leaves this process, as one. Once it has ended, nobody needs to
        answer what is open.

        Raises what made something of it unstorable, unless it fails by that, or is cancelled.
        """
        if self.broken is not None and ending.status not in ("failed", "cancelled"):
            raise self.broken
        if ending.event is not None:
            self.pending.events.append(Telling("", time(), ending.type, ending.event))
            self.pending.interrupts += [InterruptRow(one, "withdrawn") for one in self.asked.values()]
        self.pending.ending = ending
        self.broken = None
        self._added()
        await self.settled()

    async def settled(self) -> None:
        """Returns once everything queued so far is stored.

        Raises `FencedOff` where it never will be, `Unavailable` where it is not within `patience_s`.
        """
        if self.broken is not None:
            raise self.broken
        if self.fenced_off:
            raise FencedOff("another process holds the run")
        if self.stored >= self.added:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((self.added, future))
        self.log.mark(self, urgent=True)
        try:
            async with asyncio.timeout(self.patience_s):
                await future
        except TimeoutError:
            raise Unavailable("the database did not take the run's log in time") from None

    def _added(self) -> None:
        self.added += 1
        self.log.mark(self)

    def taken(self) -> Portion:
        """What is pending, to be stored now: what comes meanwhile is not joined to it."""
        portion = Portion(self, self.pending, self.added)
        self.pending, self.tried = Pending(), 0
        return portion

    def put_back(self, portion: Portion) -> None:
        """It may be stored, or not: it is to be sent again as it was."""
        self.tried = len(portion.pending.events)
        self.pending = portion.pending.followed_by(self.pending)

    def refused(self, error: Exception) -> None:
        """What is pending will never be stored; the run cannot go on, but it can still end."""
        for row in self.pending.interrupts:
            if row.status == "open":
                self.asked.pop(row.key, None)
        upto, self.pending, self.tried = self.added, Pending(), 0
        self.broken = error
        self.settle(upto, error)
        self.stored = upto

    def settle(self, upto: int, error: Exception | None = None) -> None:
        """Everything queued up to number `upto` is stored, or never will be because of `error`."""
        if error is None:
            self.stored = max(self.stored, upto)
        rest = []
        for target, future in self.waiting:
            if error is None and target > upto:
                rest.append((target, future))
            elif not future.done():
                _resolve(future, error)
        self.waiting = rest


def _resolve(future: asyncio.Future[None], error: Exception | None) -> None:
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


@dataclass(frozen=True, slots=True)
class Portion:
    """What one run has in one commit. `upto`: how much of what it ever queued that settles."""

    run: RunLog
    pending: Pending
    upto: int

    @property
    def last_seq(self) -> int:
        return self.run.seq + len(self.pending.events)

    def rows(self) -> list[LoggedEvent]:
        """The events as they will be read."""
        return [
            LoggedEvent(
                self.run.lease.id,
                seq,
                datetime.fromtimestamp(told.ts, UTC),
                told.node_path,
                told.type,
                told.body(),
            )
            for seq, told in enumerate(self.pending.events, start=self.run.seq + 1)
        ]
