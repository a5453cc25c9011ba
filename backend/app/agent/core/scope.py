"""What a node may do while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from app.agent.core.calls import AgentAnswer, CallKind, JournalledCall
from app.agent.core.http import HttpReply, HttpRequest
from app.agent.core.interfaces import (
    ChatModel,
    Citation,
    FinishReason,
    Passage,
    Tool,
    ToolResult,
    Usage,
)
from app.agent.core.interrupts import Answered, Question
from app.agent.core.limits import EngineLimits
from app.agent.core.sandbox import CodeRunner, Expressions
from app.agent.graph.references import Lookup

Work = Callable[[], Awaitable[Any]]
"""Begins anew each time; what was done of it before is not done again."""
Ends = Callable[[int, BaseException], BaseException | None]
"""What is to be raised where the work of that number failed; None where the others go on."""


class Scope(Lookup, Protocol):
    """What a node may do while it runs: read values, call models and others, search, speak, write state."""

    @property
    def expressions(self) -> Expressions: ...

    @property
    def code(self) -> CodeRunner: ...

    async def request(self, request: HttpRequest) -> HttpReply:
        """Sends a request. Raises `HttpFailed`.

        Where the node's effect is `write`, it carries an `Idempotency-Key` unless it has one: the same for
        this request of this node in every attempt, also in those of a process that continues the run.
        """
        ...

    async def chat_model(self, binding: str) -> ChatModel: ...

    async def search(self, binding: str, query: str, *, top_k: int, mode: str) -> list[Passage]: ...

    def reading(self, **sources: Any) -> Lookup:
        """What reads `item` or `loop`, too, as the graph inside of the node does."""
        ...

    async def inside(self, key: str, inputs: Mapping[str, Any], /, **sources: Any) -> Mapping[str, Any]:
        """Runs the graph inside of the node, for the item or round `key`; the output of its end.

        Raises the `NodeFailed` of a node in it, and `Suspended` where it waits for a person or a time. What
        it did is not done again when the node is.
        """
        ...

    async def call_agent(self, binding: str, inputs: Mapping[str, Any]) -> AgentAnswer:
        """Runs a published agent as a part of this run. Raises like `inside`, also for `inputs` that do not
        fit."""
        ...

    async def ask(self, question: Question) -> Answered:
        """Asks a person. Raises `Suspended` until there is an answer, or the time for it is over."""
        ...

    async def until(self, due_ms: int) -> None:
        """Waits for a time (milliseconds since the Unix epoch), without a process that does. Raises
        `Suspended` until then."""
        ...

    async def side_by_side(self, works: Sequence[Work], *, places: int, ends: Ends) -> list[Any]:
        """What came of each, a result or a failure; `places` of them are at work at once.

        Raises what ends all of them, which cancels the others, and `Suspended` where some wait for a person
        or a time and the rest is done.
        """
        ...

    @property
    def limits(self) -> EngineLimits: ...

    def has_shown(self, text: str) -> bool:
        """Whether a whole assistant message with this text was shown in the run."""
        ...

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, as they were when the node first began."""
        ...

    async def tools(self, binding: str) -> Sequence[Tool]:
        """What a name of `bindings.tools` stands for; to be called through `call_tool`."""
        ...

    async def call_tool(self, tool: Tool, arguments: Mapping[str, Any]) -> ToolResult:
        """Raises `ToolFailed`.

        Where the tool or the node writes, the call has an idempotency key: the same for this call of this
        node in every attempt, also in those of a process that continues the run.
        """
        ...

    async def say(self, delta: str) -> None:
        """Text as it comes; shown as assistant text if this node produces the interface's answer."""
        ...

    async def cite(self, citation: Citation) -> None: ...

    def call(self, number: int, kind: CallKind) -> JournalledCall:
        """One of several calls, which are numbered from 1 in an order that is always the same."""
        ...

    async def tell_call(self, model_id: str, name: str, arguments: str, *, whole: bool = False) -> str:
        """A tool call that a model asks for, piece by piece, or the `whole` where there was no piece; answers
        the id under which it is told."""
        ...

    async def agent_inputs(self, binding: str) -> Mapping[str, Any]:
        """The JSON Schema of what a published agent takes."""
        ...

    def spend(self, model: str, usage: Usage) -> None: ...

    def ended(self, reason: FinishReason) -> None:
        """Why the model ended its answer; told with the node's end."""
        ...

    def take(self, handle: str) -> None:
        """Leave by another handle than `out`."""
        ...

    def write_state(self, field: str, value: Any) -> None:
        """Goes through the field's reducer when the node has succeeded."""
        ...
