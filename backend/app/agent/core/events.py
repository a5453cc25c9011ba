"""The CUSTOM events of a run: each name with the model of its payload.

Besides these a run emits AG-UI 1.0 events (https://docs.ag-ui.com): RUN_STARTED first, TEXT_MESSAGE_*
for assistant text, TOOL_CALL_* for the tools that models call, and exactly one of RUN_FINISHED and RUN_ERROR
last. Payloads are JSON; times are milliseconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from ag_ui.core import CustomEvent
from pydantic import BaseModel, ConfigDict, Field

from app.agent.core.interfaces import FinishReason


class Payload(BaseModel):
    """The `value` of one kind of CUSTOM event."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    event_name: ClassVar[str]

    def event(self) -> CustomEvent:
        return CustomEvent(name=self.event_name, value=self.model_dump(mode="json", exclude_none=True))


class Failure(BaseModel):
    """Why a node failed, for programs (`code`) and for people (`message`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    code: str
    message: str


class Tokens(BaseModel):
    """What model calls used, as the models count."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    input_tokens: Annotated[int, Field(ge=0)]
    output_tokens: Annotated[int, Field(ge=0)]


class NodeStarted(Payload):
    """A node is about to run. Nodes that are skipped have no events."""

    event_name: ClassVar[str] = "node.started"

    node_id: str
    node_type: str


class NodeFinished(Payload):
    """A node has ended; `attempts` counts from 1. `cached`: it was asked the same before, and did not run;
    `taken_from`: neither did it here, but in that run, of which this one was made.

    `handle` is the way out it took, absent if its failure fails the run. `finish_reason` is why the model
    ended its last answer. `text` is what it wrote, where that is not shown as assistant text.
    """

    event_name: ClassVar[str] = "node.finished"

    node_id: str
    node_type: str
    status: Literal["succeeded", "failed"]
    handle: str | None = None
    attempts: int
    cached: bool | None = None
    taken_from: str | None = None
    duration_ms: float
    usage: Tokens | None = None
    error: Failure | None = None
    finish_reason: FinishReason | None = None
    text: str | None = None


class CitationFound(Payload):
    """Marker `[index]` of a message, and the passage behind it.

    `start` and `end` are Unicode code points into the document's text. Without `message_id` the
    text is not assistant text.
    """

    event_name: ClassVar[str] = "citation"

    node_id: str
    message_id: str | None = None
    index: int
    chunk_id: UUID
    document_id: UUID
    title: str
    start: int
    end: int
    quote: str
    page: int | None = None


class Retry(Payload):
    """An attempt failed; the next one, number `attempt`, begins after `delay_ms`."""

    event_name: ClassVar[str] = "retry"

    node_id: str
    attempt: int
    delay_ms: float
    error: Failure


class MessageDiscarded(Payload):
    """What was told under `message_id`, text and the tool calls that have it as their `parentMessageId`, does
    not count; a further attempt has another id."""

    event_name: ClassVar[str] = "message.discarded"

    node_id: str
    message_id: str
    reason: Failure


class RunContinued(Payload):
    """Another process goes on with the run, for the `times`-th time; what was told before still holds.

    Nodes that were under way begin again, and say so by another `node.started`.
    """

    event_name: ClassVar[str] = "run.continued"

    times: int


class InterruptOpened(Payload):
    """A node waits for a person, who answers by `POST /runs/{run_id}/interrupts/{interrupt_id}`.

    The answer's `choice` is one of `choices`, if there are any; its `data` fits `form`, a JSON Schema of an
    object, for which `prefill` proposes values. Until `due_at`, if that is given, the answer can be given.
    Of the kind `approval`, it is about the call `tool_call_id` of `tool`.
    """

    event_name: ClassVar[str] = "interrupt"

    node_id: str
    interrupt_id: UUID
    kind: Literal["human", "approval"]
    message: str
    choices: list[str] | None = None
    form: dict[str, Any] | None = None
    prefill: dict[str, Any] | None = None
    assignee: str | None = None
    due_at: datetime | None = None
    tool: str | None = None
    tool_call_id: str | None = None


class RunSuspended(Payload):
    """All that is left of the run waits: `interrupted` for a person, `waiting` for the time `until`.

    It goes on by itself when there is an answer or the time has come, and says so by `run.resumed`.
    """

    event_name: ClassVar[str] = "run.suspended"

    status: Literal["interrupted", "waiting"]
    until: datetime | None = None


class RunResumed(Payload):
    """The run goes on after it was suspended; it was taken up `times` times in all."""

    event_name: ClassVar[str] = "run.resumed"

    times: int


_ALL: tuple[type[Payload], ...] = (
    *(NodeStarted, NodeFinished, CitationFound, Retry, MessageDiscarded),
    *(InterruptOpened, RunSuspended, RunResumed, RunContinued),
)
PAYLOADS = {payload.event_name: payload for payload in _ALL}
"""Every CUSTOM name, for documentation and for readers of the event log."""


def payload_of(event: Any) -> Payload | None:
    """The typed payload of a CUSTOM event; None for any other event."""
    if not isinstance(event, CustomEvent) or event.name not in PAYLOADS:
        return None
    return PAYLOADS[event.name].model_validate(event.value)
