"""Answers of models that must have a form: read strictly, and asked for once more where they have not."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from app.agent.core.base import NodeError
from app.agent.core.interfaces import ChatModel, ChatRequest, FinishReason, Message, Role, Usage
from app.agent.core.scope import Scope
from app.agent.graph.json_schema import errors_of
from app.agent.graph.model_calls import Heard, listen

_Value = TypeVar("_Value")
_MOST_TOLD = 10
_UNFINISHED: Mapping[FinishReason, str] = {
    "length": "the answer was cut off before its JSON was complete: raise max_tokens",
    "content_filter": "the model refused to answer",
    "tool_calls": "the model asked for tools instead of answering",
}


class InvalidOutput(NodeError):
    """The answer has not the form that was asked for. `told` says so to the model, None if that is no use."""

    code = "invalid_output"

    def __init__(self, message: str, *, told: str | None = None) -> None:
        super().__init__(message)
        self.told = told


@dataclass(frozen=True, slots=True)
class Answer(Generic[_Value]):
    """What a model answered, and what it used for that; `repaired`: only when it was asked again."""

    value: _Value
    usage: Usage
    repaired: bool


async def ask(
    model: ChatModel, request: ChatRequest, scope: Scope, read: Callable[[str], _Value]
) -> Answer[_Value]:
    """The answer as `read` reads it. Where that raises `InvalidOutput`, the model is told, and asked again.

    Raises `ModelError`, and `InvalidOutput` where the second answer is not usable either.
    """
    first = await _answer(model, request, scope)
    try:
        return Answer(_read(first, read), first.usage, repaired=False)
    except InvalidOutput as error:
        if error.told is None:
            raise
        told = Message(Role.USER, f"{error.told}\nAnswer again, in the form that was asked for.")
    said = [Message(Role.ASSISTANT, first.text)] if first.text else []
    second = await _answer(model, replace(request, messages=[*request.messages, *said, told]), scope)
    return Answer(_read(second, read), first.usage + second.usage, repaired=True)


@dataclass(frozen=True, slots=True)
class _Text:
    text: str
    reason: FinishReason
    usage: Usage


async def _answer(model: ChatModel, request: ChatRequest, scope: Scope) -> _Text:
    heard = Heard()
    finished = await listen(model, request, scope, heard, aloud=False)
    scope.spend(model.name, finished.usage)
    scope.ended(finished.reason)
    return _Text("".join(heard.text), finished.reason, finished.usage)


def _read(answer: _Text, read: Callable[[str], _Value]) -> _Value:
    _check_finished(answer.reason)
    return read(answer.text)


def _check_finished(reason: FinishReason) -> None:
    if reason != "stop":
        raise InvalidOutput(_UNFINISHED[reason])


def parsed(text: str, schema: Mapping[str, Any], reason: FinishReason = "stop") -> Any:
    """The answer as a value that fits the schema. Raises `InvalidOutput`."""
    _check_finished(reason)
    try:
        value = json.loads(_unfenced(text), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        message = f"the answer is not JSON: {error}"
        raise InvalidOutput(message, told=f"This is not JSON: {error}.") from error
    if wrong := [f"{one.pointer or '/'}: {one.message}" for one in errors_of(schema, value)]:
        raise InvalidOutput(
            f"the answer does not fit output_schema: {'; '.join(wrong[:3])}",
            told="This JSON does not fit the schema:\n" + "\n".join(wrong[:_MOST_TOLD]),
        )
    return value


def schema_told(schema: Mapping[str, Any]) -> str:
    """What a model is told that takes no schema with the request."""
    written = json.dumps(schema, ensure_ascii=False)
    return (
        f"Your last answer must be one JSON object, and nothing else, that fits this JSON Schema:\n{written}"
    )


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
