"""Calls of a node that are journalled one by one (`JournalledCall` of `core/calls`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.agent.core.calls import AgentAnswer, CallKind
from app.agent.core.events import Failure
from app.agent.core.interfaces import StepRecord, ToolEffect, Usage
from app.agent.core.interrupts import Answered, Question
from app.agent.graph.ports import Undeliverable, usage_read, usage_told
from app.agent.graph.request_hash import call_hash, hash_of
from app.core.ids import stable_id

if TYPE_CHECKING:
    from app.agent.graph.scope import NodeScope


@dataclass(slots=True)
class NodeCall:
    """Recorded under the visit of the node, not of the attempt: a call that has ended is not made again."""

    scope: NodeScope
    number: int
    kind: CallKind
    started_at_ms: int
    started_s: float
    request_hash: str | None = None

    @property
    def path(self) -> str:
        """Of what runs inside of the call."""
        return f"{self.scope.path}/{self.number}"

    def idempotency_key(self, asked: Any) -> str:
        made_of = (self.scope.run.effects_id, "effect", self.scope.path)
        return str(stable_id(*made_of, "call", self.number, hash_of(asked)))

    def recall(self) -> StepRecord | None:
        known = self._known()
        if known is None or known.source_run_id is not None:
            return None
        self.scope.count_recalled(known)
        return known if _is_answered(known) else None

    def take_over(self, asked: Any) -> StepRecord | None:
        frame = self.scope.frame
        self.request_hash = call_hash(frame.plan, self.scope.node, asked)
        known = self._known()
        if known is None or not _is_answered(known):
            return None
        return known if known.request_hash == self.request_hash else None

    def _known(self) -> StepRecord | None:
        frame = self.scope.frame
        known = frame.run.recall(self.scope.path, frame.visit, self.number)
        return known if known and known.ended else None

    def begun(self) -> Mapping[str, Any]:
        frame = self.scope.frame
        known = frame.run.recall(self.scope.path, frame.visit, self.number)
        if known is None or known.ended or known.output is None:
            return {}
        ours = known.source_run_id is None or known.request_hash == self.request_hash
        return known.output if ours else {}

    async def prepare(self, effect: ToolEffect, told: Mapping[str, Any], *, decided: bool = False) -> None:
        if decided or effect == "write":
            await self.scope.run.begin(self._record("started", output=told))
        elif effect == "read":
            await self.scope.run.ready()

    async def finish(
        self,
        output: Mapping[str, Any] | None,
        *,
        failure: Failure | None = None,
        usage: Mapping[str, Usage] | None = None,
        event: Any = None,
    ) -> None:
        used = _sum(self._used_in_vain(), usage or {})
        step = self._record(
            "failed" if failure else "succeeded",
            duration_ms=round((self.scope.run.ports.clock.elapsed_s() - self.started_s) * 1000, 3),
            output=output,
            error=failure.model_dump() if failure else None,
            usage=usage_told(used) if used else None,
        )
        await self.scope.run.record(step, event)

    def _used_in_vain(self) -> Mapping[str, Usage]:
        """By earlier attempts of this visit, whose entry the next one takes."""
        known = self._known()
        if known is None or known.source_run_id is not None or _is_answered(known):
            return {}
        return usage_read(known.usage)

    def check_failure(self, error: Exception) -> None:
        if isinstance(error, Undeliverable):
            raise error
        self.scope.run.rule_out_outage(error)

    async def ask(self, question: Question, *, within_s: float | None) -> Answered:
        if within_s is not None:  # of one that was put already the time then holds
            due_ms = self.scope.run.ports.clock.now_ms() + int(within_s * 1000)
            question = replace(question, due_ms=due_ms)
        return await self.scope.put(self._place, question)

    def put(self) -> Question | None:
        known = self.scope.run.asked(*self._place)
        return known.question if known else None

    @property
    def _place(self) -> tuple[Any, ...]:
        return self.scope.path, self.scope.frame.visit, "call", self.number

    async def agent(self, binding: str, inputs: Mapping[str, Any]) -> AgentAnswer:
        return await self.scope.enter_agent(
            binding, inputs, path=self.path, speaks=False, visit=self.scope.frame.visit
        )

    async def withdraw(self) -> None:
        await self.scope.run.withdraw(self.path)

    async def complete_message(self) -> None:
        await self.scope.message.complete()
        self._next_message()

    async def discard_message(self, reason: Failure) -> None:
        await self.scope.message.discard(self.scope.node.id, reason)
        self._next_message()

    def _next_message(self) -> None:
        self.scope.message = self.scope.message_of(self.number + 1)

    def _record(self, status: str, *, duration_ms: float = 0, **came_of_it: Any) -> StepRecord:
        return StepRecord(
            node_path=self.scope.path,
            node_type=self.kind,
            visit=self.scope.frame.visit,
            call=self.number,
            status=status,
            started_at_ms=self.started_at_ms,
            duration_ms=duration_ms,
            attempts=self.scope.attempt,
            request_hash=self.request_hash,
            **came_of_it,
        )


def _is_answered(known: StepRecord) -> bool:
    """Whether what came of a call holds; what has no output is to be asked again."""
    return known.output is not None


def _sum(one: Mapping[str, Usage], other: Mapping[str, Usage]) -> dict[str, Usage]:
    return {model: one.get(model, Usage()) + other.get(model, Usage()) for model in {**one, **other}}
