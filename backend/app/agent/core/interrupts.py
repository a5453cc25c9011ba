"""What a run waits for without a process that does: an answer of a person, a time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID


class Suspended(Exception):
    """A run, or a part of it, can only go on when a person has answered (`by_people`) or, at `due_ms`, a time
    has come.

    `due_ms` is in milliseconds since the Unix epoch, None where only an answer helps. `ids` are those of the
    interrupts that it waits for.
    """

    def __init__(self, *, due_ms: int | None, by_people: bool, ids: frozenset[UUID] = frozenset()) -> None:
        super().__init__(f"waits until {due_ms}" if due_ms else "waits for an answer")
        self.due_ms = due_ms
        self.by_people = by_people
        self.ids = ids

    @classmethod
    def all(cls, waiting: Sequence[Suspended]) -> Suspended:
        """Until the first of `waiting` can go on."""
        dues = [one.due_ms for one in waiting if one.due_ms is not None]
        by_people = any(one.by_people for one in waiting)
        ids = frozenset[UUID]().union(*(one.ids for one in waiting))
        return cls(due_ms=min(dues, default=None), by_people=by_people, ids=ids)


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked. Without `choices` the answer is data alone; `form` is the JSON Schema of it.

    An approval is about the call of `tool` that is told under `tool_call_id`. `due_ms`: until when, in
    milliseconds since the Unix epoch.
    """

    message: str
    kind: Literal["human", "approval"] = "human"
    choices: Sequence[str] = ()
    form: Mapping[str, Any] | None = None
    prefill: Mapping[str, Any] = field(default_factory=dict)
    assignee: str | None = None
    tool: str | None = None
    tool_call_id: str | None = None
    due_ms: int | None = None

    def asks_the_same(self, other: Question) -> bool:
        """Whether an answer to the one is one to the other: approvals are about a call, as it was shown."""
        if self.kind == "approval":
            return (self.tool, self.prefill) == (other.tool, other.prefill)
        return (self.message, tuple(self.choices), self.form) == (
            other.message,
            tuple(other.choices),
            other.form,
        )


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of a question: `choice` and `data` of the answer, or `expired` where there was none in time.

    `answered_by` names who answered, `answered_at_ms` is when it was over.
    """

    expired: bool
    answered_at_ms: int
    choice: str | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    answered_by: str | None = None


@dataclass(frozen=True, slots=True)
class Interrupt:
    """A question, or a time that is waited for (`question` None), of the node at `node_path`.

    `answered` is set once it is over. `due`: its time had come when it was looked at, by the clock that
    decides when a run is.
    """

    id: UUID
    node_path: str
    question: Question | None
    due_ms: int | None
    answered: Answered | None = None
    due: bool = False


class Interrupts(Protocol):
    """What one run waits for. Kept with its journal."""

    def recall(self, interrupt_id: UUID) -> Interrupt | None:
        """The interrupt as it was when it was last looked at; None where it is not there yet."""
        ...

    def listen(self, hear: Callable[[], None]) -> None:
        """`hear` is called when somebody may have answered, if that is known here."""
        ...

    async def over(self, ids: Collection[UUID]) -> Sequence[Interrupt]:
        """Those that are over, or due, as they are now."""
        ...

    def take(self, interrupt: Interrupt) -> None:
        """`recall` knows it from now on: somebody goes on because of it."""
        ...

    async def open(self, interrupt: Interrupt, event: Any = None) -> None:
        """Records it together with the AG-UI event that tells it."""
        ...

    async def expire(self, interrupt_id: UUID) -> Answered:
        """Closes one whose time is over; the answer, where there was one at the last moment."""
        ...

    async def withdraw(self, under: str) -> None:
        """Closes what nodes below the path `under` wait for: nobody needs the answers any more."""
        ...
