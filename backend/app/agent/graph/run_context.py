"""One run while it lasts: its ports, what it has used, what it has shown."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ag_ui.core import TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent

from app.agent.core.events import Failure, MessageDiscarded, RunContinued
from app.agent.core.interfaces import StepRecord, Usage
from app.agent.graph.plan import Plan
from app.agent.graph.ports import Past, Ports, Undeliverable
from app.core.ids import stable_id


@dataclass(slots=True)
class RunContext:
    """Shared by all nodes of a run. `shown` holds the whole assistant messages so far."""

    plan: Plan
    ports: Ports
    run_id: str
    thread_id: str
    session: Mapping[str, Any]
    past: Past = field(default_factory=Past)
    usage: dict[str, Usage] = field(init=False)
    shown: list[str] = field(init=False)
    ended: bool = False

    def __post_init__(self) -> None:
        self.usage = dict(self.past.usage)
        self.shown = list(self.past.shown)

    async def emit(self, event: Any, node_path: str = "") -> None:
        """Raises `Undeliverable`, also once the run has ended: nothing follows the terminal event."""
        if self.ended:
            raise Undeliverable("the run has ended")
        try:
            await self.ports.sink.emit(event, node_path=node_path)
        except Exception as error:
            raise Undeliverable("the event sink raised") from error

    async def end(self, event: Any) -> None:
        """Emits the terminal event."""
        await self.emit(event)
        self.ended = True

    async def go_on(self) -> None:
        """Tells that the run is taken up again; what was told in part does not count."""
        await self.emit(RunContinued(times=self.past.continued).event())
        for node_path, message_id in self.past.half_told:
            await self.emit(TextMessageEndEvent(message_id=message_id), node_path)
            reason = Failure(code="process_died", message="the process that wrote this is gone")
            discarded = MessageDiscarded(node_id=node_path, message_id=message_id, reason=reason)
            await self.emit(discarded.event(), node_path)

    def recall(self, node_path: str) -> StepRecord | None:
        return self.ports.journal.recall(node_path, 1)

    def rule_out_outage(self, error: Exception) -> None:
        """Raises `Undeliverable` where `error` is not the graph's: the platform's database is away."""
        if self.ports.is_outage(error):
            raise Undeliverable("the database is away") from error

    async def ready(self) -> None:
        """Returns once everything that was recorded is stored."""
        await _delivered(self.ports.journal.ready())

    async def begin(self, step: StepRecord) -> None:
        """Stores that an effect is about to happen."""
        await _delivered(self.ports.journal.began(step))

    async def record(self, step: StepRecord, event: Any = None) -> None:
        """Records a step together with the event that tells it."""
        await _delivered(self.ports.journal.finished(step, event))

    def spend(self, model: str, usage: Usage) -> None:
        self.usage[model] = plus(self.usage.get(model, Usage()), usage)

    def message(self, node_path: str, attempt: int) -> AssistantMessage:
        """A message of its own for each attempt of each process that works on the run."""
        return AssistantMessage(self, node_path, attempt)


@dataclass(slots=True)
class AssistantMessage:
    """Assistant text, opened by its first delta. Empty deltas are not passed on."""

    run: RunContext
    node_path: str
    attempt: int
    deltas: list[str] = field(default_factory=list)
    _id: str = ""

    @property
    def id(self) -> str:
        """Made when first asked for: most nodes say nothing."""
        if not self._id:
            made_of = (self.run.run_id, self.node_path, self.run.past.continued, self.attempt)
            self._id = str(stable_id(*made_of))
        return self._id

    @property
    def visible(self) -> bool:
        return bool(self.deltas)

    async def say(self, delta: str) -> None:
        if not delta:
            return
        await self.open()
        self.deltas.append(delta)
        await self.run.emit(TextMessageContentEvent(message_id=self.id, delta=delta), self.node_path)

    async def open(self) -> None:
        if not self.deltas:
            await self.run.emit(TextMessageStartEvent(message_id=self.id, role="assistant"), self.node_path)

    async def close(self) -> None:
        if self.deltas:
            await self.run.emit(TextMessageEndEvent(message_id=self.id), self.node_path)

    async def complete(self) -> None:
        """Ends the message; from now on its text counts as shown."""
        await self.close()
        if self.deltas:
            self.run.shown.append("".join(self.deltas))


async def _delivered(work: Awaitable[None]) -> None:
    try:
        await work
    except Exception as error:
        raise Undeliverable("the journal raised") from error


def plus(one: Usage, other: Usage) -> Usage:
    return Usage(one.input_tokens + other.input_tokens, one.output_tokens + other.output_tokens)
