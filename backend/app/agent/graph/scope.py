"""What one attempt of one node sees and may do (the `Scope` of `core/base`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from app.agent.core.base import SUCCESS, Effect, NodeError
from app.agent.core.events import CitationFound
from app.agent.core.interfaces import (
    ChatModel,
    Citation,
    Expressions,
    FinishReason,
    HttpReply,
    HttpRequest,
    Passage,
    Usage,
)
from app.agent.core.state import Reducer, Write
from app.agent.core.value_types import fits, of_value
from app.agent.graph.checks.state import type_of
from app.agent.graph.plan import PlannedNode
from app.agent.graph.references import Chain, Reference
from app.agent.graph.run_context import AssistantMessage, RunContext, plus
from app.core.ids import stable_id

_IDEMPOTENCY_KEY = "Idempotency-Key"


@dataclass(frozen=True, slots=True)
class Values:
    """Where references lead in one run: the four fixed sources, and the outputs of finished nodes."""

    sources: Mapping[str, Mapping[str, Any]]
    outputs: Mapping[str, Mapping[str, Any]]

    def find(self, reference: Reference) -> tuple[bool, Any]:
        """Whether the reference is set, and its value."""
        if reference.source in self.sources:
            here: Any = self.sources[reference.source]
        elif reference.source in self.outputs:
            here = self.outputs[reference.source]
        else:
            return False, None
        for step in reference.path:
            if isinstance(here, Mapping) and step in here:
                here = here[step]
            elif isinstance(here, list) and step.isdigit() and int(step) < len(here):
                here = here[int(step)]
            else:
                return False, None
        return True, here


@dataclass(slots=True)
class NodeScope:
    """Made anew for each attempt, so that a failed attempt leaves nothing behind."""

    run: RunContext
    node: PlannedNode
    values: Values
    message: AssistantMessage
    used: dict[str, Usage] = field(default_factory=dict)
    handle: str = SUCCESS
    writes: list[Write] = field(default_factory=list)
    requests: int = 0
    cited: list[Citation] = field(default_factory=list)
    cached: bool = False
    finish_reason: FinishReason | None = None

    @property
    def expressions(self) -> Expressions:
        return self.run.ports.expressions

    @property
    def idempotency_key(self) -> str:
        """Of the next request: nothing of the attempt or the process is in it."""
        return str(stable_id(self.run.run_id, "effect", self.node.id, 1, self.requests + 1))

    async def request(self, request: HttpRequest) -> HttpReply:
        given = {name.lower() for name in request.headers}
        if self.node.effect is Effect.WRITE and _IDEMPOTENCY_KEY.lower() not in given:
            headers = {**request.headers, _IDEMPOTENCY_KEY: self.idempotency_key}
            request = replace(request, headers=headers)
        self.requests += 1
        return await self.run.ports.http.send(request)

    def value(self, chain: Chain) -> Any:
        """The first alternative that is set and not null; null if the best one is null.

        Raises `NodeError` (`unset_reference`) where none is set.
        """
        found_null = False
        for reference in chain.references:
            found, value = self.values.find(reference)
            if value is not None:
                return value
            found_null |= found
        if chain.literal:
            return chain.literal.value
        if found_null:
            return None
        raise NodeError(f"'{chain}' is not set in this run", code="unset_reference")

    async def chat_model(self, binding: str) -> ChatModel:
        return await self.run.ports.models.chat(self.run.plan.bindings.models[binding])

    async def search(self, binding: str, query: str, *, top_k: int, mode: str) -> list[Passage]:
        collection = self.run.plan.bindings.collections[binding]
        return await self.run.ports.retriever.search(collection, query, top_k=top_k, mode=mode)

    async def say(self, delta: str) -> None:
        if self.node.live:
            await self.message.say(delta)

    async def cite(self, citation: Citation) -> None:
        self.cited.append(citation)
        message_id = self.message.id if self.node.live else None
        event = CitationFound(node_id=self.node.id, message_id=message_id, **asdict(citation)).event()
        await self.run.emit(event, self.node.id)

    def spend(self, model: str, usage: Usage) -> None:
        self.used[model] = plus(self.used.get(model, Usage()), usage)
        self.run.spend(model, usage)

    def ended(self, reason: FinishReason) -> None:
        self.finish_reason = reason

    def take(self, handle: str) -> None:
        if handle not in self.node.config.handles():
            raise NodeError(f"{handle!r} is none of the handles {self.node.config.handles()!r}")
        self.handle = handle

    def write_state(self, field: str, value: Any) -> None:
        """Raises `NodeError` (`type_mismatch`) where the reducer could not take the value."""
        declared = self.run.plan.state[field]
        if declared.reducer != Reducer.APPEND and not fits(type_of(declared), of_value(value)):
            message = f"state field {field!r} takes {declared.type}, not {of_value(value)}"
            raise NodeError(message, code="type_mismatch")
        self.writes.append((field, value))
