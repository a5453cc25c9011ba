"""One call of a chat model, as every node that asks one makes it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from app.agent.config import PromptMessage
from app.agent.core.base import NodeError
from app.agent.core.interfaces import (
    Capability,
    ChatEvent,
    ChatModel,
    ChatRequest,
    Citation,
    Finished,
    FinishReason,
    Message,
    ModelError,
    Role,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
)
from app.agent.core.scope import Scope
from app.agent.graph.references import Lookup, Template

_HISTORY = TypeAdapter(list[Message])
_Item = TypeVar("_Item")
_MAX_NAMED, _MAX_NAME = 5, 64


@dataclass(frozen=True, slots=True)
class Heard:
    """What a model has said so far: pieces of text, citations, the tools it asks for."""

    text: list[str] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)

    def take(self, event: ChatEvent, request: ChatRequest) -> None:
        match event:
            case TextDelta():
                self.text.append(event.text)
            case Citation() if request.citations:
                self.citations.append(event)
            case ToolCall():
                self.calls.append(event)


async def listen(
    model: ChatModel, request: ChatRequest, scope: Scope, heard: Heard, *, aloud: bool
) -> Finished:
    """Hears the model to its end; `aloud`: what it says is passed on as it comes.

    Raises `ModelError`, also where the stream breaks off before it is finished.
    """
    events = model.stream(request)
    try:
        async for event in events:
            if isinstance(event, Finished):
                return event
            heard.take(event, request)
            if aloud or isinstance(event, Citation):
                await _pass_on(event, request, scope)
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
    raise ModelError("server_error", f"the stream of {model.name!r} broke off before it was finished")


async def _pass_on(event: ChatEvent, request: ChatRequest, scope: Scope) -> None:
    match event:
        case TextDelta():
            await scope.say(event.text)
        case Citation() if request.citations:
            await scope.cite(event)
        case ToolCallDelta() if request.tools and request.tool_choice is not ToolChoice.NONE:
            await scope.tell_call(event.id, event.name, event.arguments)


def check_able(model: ChatModel, needed: Iterable[Capability]) -> None:
    """The compiler looks at this, too; but what a name stands for may change. Raises `ModelError`."""
    if lacking := frozenset(needed) - model.capabilities:
        raise ModelError("bad_request", f"the model {model.name!r} lacks {', '.join(sorted(lacking))}")


def read_history(template: Template | None, scope: Lookup) -> list[Message]:
    return read_items(template, _HISTORY, scope, field="history")


def read_items(
    template: Template | None, adapter: TypeAdapter[list[_Item]], scope: Lookup, *, field: str
) -> list[_Item]:
    """The value of a field as a list; null is none. Raises `NodeError` (`bad_request`)."""
    value = template.value(scope) if template else None
    try:
        return adapter.validate_python([] if value is None else value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise NodeError(
            f"{field} {template} is not usable: {error.errors()[0]['msg']} at {where!r}", code="bad_request"
        ) from error


def conversation(prompt: Sequence[PromptMessage], history: Template | None, scope: Lookup) -> list[Message]:
    """The prompt with the history after its leading system messages."""
    said = [Message(message.role, message.content.text(scope)) for message in prompt]
    leading = leading_system(said)
    return [*said[:leading], *read_history(history, scope), *said[leading:]]


def leading_system(messages: Sequence[Message]) -> int:
    """How many system messages a conversation begins with."""
    return next((i for i, one in enumerate(messages) if one.role != Role.SYSTEM), len(messages))


def check_silence(model: str, reason: FinishReason, calls: Sequence[ToolCall]) -> None:
    """Raises `NodeError` for an answer without text that was something else than complete."""
    if reason == "tool_calls":
        named = ", ".join(repr(call.name[:_MAX_NAME]) for call in calls[:_MAX_NAMED]) or "it does not name"
        more = ", …" if len(calls) > _MAX_NAMED else ""
        raise NodeError(
            f"the model {model!r} asked for tools ({named}{more}) instead of answering, and was given none",
            code="unexpected_tool_calls",
        )
    if reason == "content_filter":
        raise NodeError(
            f"the answer of the model {model!r} was withheld by a content filter", code="content_filter"
        )
