"""Calls that a node makes one after the other, each with an entry of its own in the journal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from app.agent.core.events import Failure
from app.agent.core.interfaces import StepRecord, ToolEffect, Usage
from app.agent.core.interrupts import Answered, Question

CallKind = Literal["model", "tool"]
"""What the journal calls such an entry (`node_type`)."""
MOST_NAME = 200
"""Characters of a tool's name that are told; models write what they like."""


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What a sub-agent gave: its output, and the text of it that is its answer, if it has one."""

    output: Mapping[str, Any]
    answer: str | None


class JournalledCall(Protocol):
    """One call of a node, known by its number, which is the same whenever and wherever the node runs.

    What was recorded holds for every later attempt, and for every process that goes on with the run.
    """

    def idempotency_key(self, asked: Any) -> str:
        """Made of run, node, number, and what is asked, a JSON value: the same for every repetition.

        A run that is made of this one may ask something else by the same number.
        """
        ...

    def recall(self) -> StepRecord | None:
        """What came of the call in this run, where it has ended; not what was of no use.

        What an earlier process has used for it counts as used by the node.
        """
        ...

    def take_over(self, asked: Any) -> StepRecord | None:
        """What came of it in the run that this one was made of, where that had asked the same, a JSON value.

        It is to be told and recorded as if it had been done now.
        """
        ...

    def begun(self) -> Mapping[str, Any]:
        """What `prepare` stored of it, where it did not come to an end: in this run, or in the one that this
        was made of, where that had asked the same. Empty where nothing is known."""
        ...

    async def prepare(self, effect: ToolEffect, told: Mapping[str, Any], *, decided: bool = False) -> None:
        """Returns once all that led to the call is stored; before a `write`, and where a person has decided,
        also that it is about to happen."""
        ...

    async def finish(
        self,
        output: Mapping[str, Any] | None,
        *,
        failure: Failure | None = None,
        usage: Mapping[str, Usage] | None = None,
        event: Any = None,
    ) -> None:
        """Records what came of it together with the AG-UI event that tells it. `usage` is by model.

        Without `output` it was of no use, and is to be made anew when the node is tried again.
        """
        ...

    def check_failure(self, error: Exception) -> None:
        """Raises what is no failure of the call: the run cannot be written, or the database is away."""
        ...

    async def ask(self, question: Question, *, within_s: float | None) -> Answered:
        """Asks a person about this call. Raises `Suspended` until there is an answer, or the time is over."""
        ...

    def put(self) -> Question | None:
        """What a person has been asked about this call; in a run that this one resumes, about the one of its
        number."""
        ...

    async def agent(self, binding: str, inputs: Mapping[str, Any]) -> AgentAnswer:
        """Runs a published agent, whose nodes are journalled below this call. Raises like `Scope.inside`."""
        ...

    async def withdraw(self) -> None:
        """Takes back what waits inside of the call for a person or a time."""
        ...

    async def complete_message(self) -> None:
        """Ends what the call has said; the next one has a message of its own."""
        ...

    async def discard_message(self, reason: Failure) -> None:
        """The same, where it does not count."""
        ...
