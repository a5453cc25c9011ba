"""`llm`: one call of a chat model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field, TypeAdapter

from app.agent.config import ModelSettings, PromptMessage
from app.agent.core.base import Effect, NodeConfig, Outputs, expects, node
from app.agent.core.interfaces import (
    Capability,
    ChatRequest,
    Citation,
    FinishReason,
    Message,
    Passage,
    Usage,
)
from app.agent.core.scope import Scope
from app.agent.core.value_types import ValueType, of_schema
from app.agent.graph.json_schema import sound_schema
from app.agent.graph.markers import unexplained
from app.agent.graph.model_calls import Heard, check_able, check_silence, conversation, listen, read_items
from app.agent.graph.references import Lookup, Template
from app.agent.graph.structured_output import parsed

_PASSAGES = TypeAdapter(list[Passage])


class LlmConfig(NodeConfig, ModelSettings):
    """Asks a chat model, with passages to answer from and earlier messages if given.

    With `output_schema`, the JSON Schema of an object, the answer is JSON that fits it: output `json`.
    `finish_reason` is `stop`, or else `length` where the answer was cut off at a limit of tokens,
    `tool_calls` or `content_filter`. An answer of the last two kinds that has no text fails the node.
    """

    type: ClassVar[str] = "llm"
    example: ClassVar[dict[str, Any]] = {
        "model": "main",
        "prompt": [
            {"role": "system", "content": "You answer in one sentence."},
            {"role": "user", "content": "{{ inputs.question }}"},
        ],
        "temperature": 0.2,
    }

    prompt: Annotated[list[PromptMessage], Field(min_length=1, max_length=100)]
    context: Annotated[Template | None, expects(list[Passage])] = None
    history: Annotated[Template | None, expects(list[Message])] = None
    citations: Annotated[bool, Field(strict=True)] = False
    output_schema: Annotated[dict[str, Any], AfterValidator(sound_schema)] | None = None

    def requires(self) -> frozenset[Capability]:
        """With `output_schema`, `structured_output`."""
        return frozenset({Capability.STRUCTURED_OUTPUT} if self.output_schema else ())

    def given(self, types: Mapping[str, ValueType]) -> Mapping[str, ValueType]:
        """`json` only with `output_schema`, whose values it has."""
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
    check_able(model, config.requires())
    heard = Heard()
    finished = await listen(model, request, scope, heard, aloud=True)
    scope.spend(model.name, finished.usage)
    scope.ended(finished.reason)
    written = "".join(heard.text)
    if config.citations:
        numbered = dict(enumerate(request.context, start=1))
        for citation in unexplained(written, numbered, heard.citations):
            heard.citations.append(citation)
            await scope.cite(citation)
    outputs: dict[str, Any] = {
        "text": written,
        "citations": sorted(heard.citations, key=lambda citation: citation.index),
        "usage": finished.usage,
        "finish_reason": finished.reason,
    }
    if config.output_schema is not None:
        outputs["json"] = parsed(written, config.output_schema, finished.reason)
    elif not written.strip():
        check_silence(model.name, finished.reason, heard.calls)
    return outputs


def _request(config: LlmConfig, scope: Lookup) -> ChatRequest:
    return ChatRequest(
        messages=conversation(config.prompt, config.history, scope),
        context=read_items(config.context, _PASSAGES, scope, field="context"),
        citations=config.citations,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        response_schema=config.output_schema,
    )
