"""`llm`: one call of a chat model."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from app.agent.config import ModelSettings, PromptMessage
from app.agent.core.base import Effect, NodeConfig, NodeError, Outputs, Scope, expects, node
from app.agent.core.interfaces import (
    Capability,
    ChatModel,
    ChatRequest,
    Citation,
    Finished,
    FinishReason,
    Message,
    ModelError,
    Passage,
    Role,
    TextDelta,
    ToolCall,
    Usage,
)
from app.agent.core.value_types import ValueType, of_schema
from app.agent.graph.json_schema import errors_of, sound_schema
from app.agent.graph.references import Lookup, Template

_PASSAGES = TypeAdapter(list[Passage])
_HISTORY = TypeAdapter(list[Message])
_Item = TypeVar("_Item")
_UNFINISHED: Mapping[FinishReason, str] = {
    "length": "the answer was cut off before its JSON was complete: raise max_tokens",
    "content_filter": "the model refused to answer",
    "tool_calls": "the model asked for tools instead of answering",
}
_MAX_NAMED, _MAX_NAME = 5, 64
_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


class LlmConfig(NodeConfig, ModelSettings):
    """Asks a chat model, with passages to answer from and earlier messages if given.

    With `output_schema`, the JSON Schema of an object, the answer is JSON that fits it: output `json`.
    `finish_reason` is `stop`, or else `length` where the answer was cut off at a limit of tokens,
    `tool_calls` or `content_filter`. An answer of the last two kinds that has no text fails the node.
    """

    type: ClassVar[str] = "llm"

    prompt: Annotated[list[PromptMessage], Field(min_length=1, max_length=100)]
    context: Annotated[Template | None, expects(list[Passage])] = None
    history: Annotated[Template | None, expects(list[Message])] = None
    citations: Annotated[bool, Field(strict=True)] = False
    output_schema: Annotated[dict[str, Any], AfterValidator(sound_schema)] | None = None

    def requires(self) -> frozenset[Capability]:
        return frozenset({Capability.STRUCTURED_OUTPUT} if self.output_schema else ())

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        if self.output_schema is None:
            return {name: kind for name, kind in types.items() if name != "json"}
        return {**types, "json": of_schema(self.output_schema)}


@node(
    LlmConfig,
    effect=Effect.READ,
    streams="text",
    outputs={
        "text": str,
        "json": dict[str, Any],
        "citations": list[Citation],
        "usage": Usage,
        "finish_reason": FinishReason,
    },
)
async def llm(config: LlmConfig, scope: Scope) -> Outputs:
    """Raises `ModelError`, also where the stream breaks off before it is finished, and `NodeError`:
    `invalid_output` where the answer is not the JSON that was asked for, `unexpected_tool_calls` and
    `content_filter` where there is no text because of that.
    """
    request = _request(config, scope)
    model = await scope.chat_model(config.model)
    if lacking := config.requires() - model.capabilities:
        raise ModelError("bad_request", f"the model {model.name!r} lacks {', '.join(sorted(lacking))}")
    heard = _Heard()
    finished = await _listen(model, request, scope, heard)
    scope.spend(model.name, finished.usage)
    scope.ended(finished.reason)
    written = "".join(heard.text)
    if config.citations:
        for citation in _unexplained(written, request.context, heard.citations):
            heard.citations.append(citation)
            await scope.cite(citation)
    outputs: dict[str, Any] = {
        "text": written,
        "citations": sorted(heard.citations, key=lambda citation: citation.index),
        "usage": finished.usage,
        "finish_reason": finished.reason,
    }
    if config.output_schema is not None:
        outputs["json"] = _parsed(written, config.output_schema, finished.reason)
    elif not written.strip():
        _check_silence(model.name, finished.reason, heard.tools)
    return outputs


@dataclass(frozen=True, slots=True)
class _Heard:
    """What a model has said so far: pieces of text, citations, the names of the tools it asks for."""

    text: list[str] = field(default_factory=list)
    citations: list[Citation] = field(default_factory=list)
    tools: list[str] = field(default_factory=list)


async def _listen(model: ChatModel, request: ChatRequest, scope: Scope, heard: _Heard) -> Finished:
    events = model.stream(request)
    try:
        async for event in events:
            match event:
                case TextDelta():
                    heard.text.append(event.text)
                    await scope.say(event.text)
                case Citation() if request.citations:
                    heard.citations.append(event)
                    await scope.cite(event)
                case ToolCall():
                    heard.tools.append(event.name)
                case Finished():
                    return event
    finally:
        if isinstance(events, AsyncGenerator):
            await events.aclose()
    raise ModelError("server_error", f"the stream of {model.name!r} broke off before it was finished")


def _request(config: LlmConfig, scope: Lookup) -> ChatRequest:
    prompt = [Message(message.role, message.content.text(scope)) for message in config.prompt]
    leading = next((i for i, message in enumerate(prompt) if message.role != Role.SYSTEM), len(prompt))
    history = _read(config.history, _HISTORY, scope, field="history")
    return ChatRequest(
        messages=[*prompt[:leading], *history, *prompt[leading:]],
        context=_read(config.context, _PASSAGES, scope, field="context"),
        citations=config.citations,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        response_schema=config.output_schema,
    )


def _check_silence(model: str, reason: FinishReason, tools: Sequence[str]) -> None:
    """Raises `NodeError` for an answer without text that was something else than complete."""
    if reason == "tool_calls":
        named = ", ".join(repr(name[:_MAX_NAME]) for name in tools[:_MAX_NAMED]) or "it does not name"
        more = ", …" if len(tools) > _MAX_NAMED else ""
        raise NodeError(
            f"the model {model!r} asked for tools ({named}{more}) instead of answering, and was given none",
            code="unexpected_tool_calls",
        )
    if reason == "content_filter":
        raise NodeError(
            f"the answer of the model {model!r} was withheld by a content filter", code="content_filter"
        )


def _parsed(text: str, schema: Mapping[str, Any], reason: FinishReason) -> Any:
    """The answer as a value that fits the schema."""
    if reason != "stop":
        raise NodeError(_UNFINISHED[reason], code="invalid_output")
    try:
        value = json.loads(_unfenced(text), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise NodeError(f"the answer is not JSON: {error}", code="invalid_output") from error
    if wrong := errors_of(schema, value):
        said = "; ".join(f"{one.pointer or '/'}: {one.message}" for one in wrong[:3])
        raise NodeError(f"the answer does not fit output_schema: {said}", code="invalid_output")
    return value


def _unfenced(text: str) -> str:
    """JSON without the Markdown fence that some models put around it."""
    text = text.strip()
    if len(text) > 6 and text.startswith("```") and text.endswith("```"):
        label, newline, rest = text[3:-3].partition("\n")
        if newline and label.strip() in ("", "json"):
            return rest
    return text


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _read(
    template: Template | None, adapter: TypeAdapter[list[_Item]], scope: Lookup, *, field: str
) -> list[_Item]:
    """The value of a field as a list; null is none."""
    value = template.value(scope) if template else None
    try:
        return adapter.validate_python([] if value is None else value)
    except ValidationError as error:
        where = ".".join(map(str, error.errors()[0]["loc"]))
        raise NodeError(
            f"{field} {template} is not usable: {error.errors()[0]['msg']} at {where!r}", code="bad_request"
        ) from error


def _unexplained(text: str, context: Sequence[Passage], citations: Sequence[Citation]) -> Iterator[Citation]:
    """For each marker `[n]` that the model left without a citation: passage n as a whole."""
    explained = {citation.index for citation in citations}
    for marker in _MARKER.finditer(text):
        for index in map(int, marker[1].split(",")):
            if index in explained or not 1 <= index <= len(context):
                continue
            explained.add(index)
            passage = context[index - 1]
            yield Citation(
                index=index,
                chunk_id=passage.chunk_id,
                document_id=passage.document_id,
                title=passage.title,
                start=passage.start,
                end=passage.end,
                quote=passage.text,
                page=passage.page,
            )
