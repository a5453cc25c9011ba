"""One run while it lasts: its ports, what it has used, what it has shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ag_ui.core import TextMessageContentEvent, TextMessageEndEvent, TextMessageStartEvent

from app.agent.core.interfaces import StepRecord, Usage
from app.agent.graph.plan import Plan
from app.agent.graph.ports import Ports, Undeliverable
from app.core.ids import stable_id


@dataclass(slots=True)
class RunContext:
    """Shared by all nodes of a run. `shown` holds the whole assistant messages so far."""

    plan: Plan
    ports: Ports
    run_id: str
    thread_id: str
    session: Mapping[str, Any]
    usage: dict[str, Usage] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    ended: bool = False

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

    async def record(self, step: StepRecord) -> None:
        try:
            await self.ports.journal.finished(step)
        except Exception as error:
            raise Undeliverable("the journal raised") from error

    def spend(self, model: str, usage: Usage) -> None:
        self.usage[model] = plus(self.usage.get(model, Usage()), usage)

    def message(self, node_path: str, attempt: int) -> AssistantMessage:
        """A message of its own for each attempt; the same run always gives it the same id."""
        return AssistantMessage(self, node_path, str(stable_id(self.run_id, node_path, 1, attempt)))


@dataclass(slots=True)
class AssistantMessage:
    """Assistant text, opened by its first delta. Empty deltas are not passed on."""

    run: RunContext
    node_path: str
    id: str
    deltas: list[str] = field(default_factory=list)

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


def plus(one: Usage, other: Usage) -> Usage:
    return Usage(one.input_tokens + other.input_tokens, one.output_tokens + other.output_tokens)
