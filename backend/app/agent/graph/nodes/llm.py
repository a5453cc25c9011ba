"""`llm`: one call of a chat model."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Annotated, ClassVar, TypeVar

from pydantic import Field, TypeAdapter, ValidationError

from app.agent.config import ModelSettings, PromptMessage
from app.agent.core.base import Effect, NodeConfig, NodeError, Outputs, Scope, expects, node
from app.agent.core.interfaces import (
    ChatModel,
    ChatRequest,
    Citation,
    Finished,
    Message,
    ModelError,
    Passage,
    Role,
    TextDelta,
    Usage,
)
from app.agent.graph.references import Lookup, Template

_PASSAGES = TypeAdapter(list[Passage])
_HISTORY = TypeAdapter(list[Message])
_Item = TypeVar("_Item")
_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


class LlmConfig(NodeConfig, ModelSettings):
    """Asks a chat model, with passages to answer from and earlier messages if given."""

    type: ClassVar[str] = "llm"

    prompt: Annotated[list[PromptMessage], Field(min_length=1, max_length=100)]
    context: Annotated[Template | None, expects(list[Passage])] = None
    history: Annotated[Template | None, expects(list[Message])] = None
    citations: Annotated[bool, Field(strict=True)] = False


@node(
    LlmConfig,
    effect=Effect.READ,
    streams="text",
    outputs={"text": str, "citations": list[Citation], "usage": Usage},
)
async def llm(config: LlmConfig, scope: Scope) -> Outputs:
    """Raises `ModelError`, also where the stream breaks off before it is finished."""
    request = _request(config, scope)
    model = await scope.chat_model(config.model)
    text: list[str] = []
    citations: list[Citation] = []
    finished = await _listen(model, request, scope, text=text, citations=citations)
    scope.spend(model.name, finished.usage)
    written = "".join(text)
    if config.citations:
        for citation in _unexplained(written, request.context, citations):
            citations.append(citation)
            await scope.cite(citation)
    return {
        "text": written,
        "citations": sorted(citations, key=lambda citation: citation.index),
        "usage": finished.usage,
    }


async def _listen(
    model: ChatModel, request: ChatRequest, scope: Scope, *, text: list[str], citations: list[Citation]
) -> Finished:
    events = model.stream(request)
    try:
        async for event in events:
            match event:
                case TextDelta():
                    text.append(event.text)
                    await scope.say(event.text)
                case Citation() if request.citations:
                    citations.append(event)
                    await scope.cite(event)
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
    )


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
