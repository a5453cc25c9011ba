"""What a server of chat completions says, as JSON: made of the types of the vendor's package, `openai`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice as WholeChoice
from openai.types.chat.chat_completion_chunk import (
    Choice,
    ChoiceDelta,
    ChoiceDeltaToolCall,
    ChoiceDeltaToolCallFunction,
)
from openai.types.chat.chat_completion_message import ChatCompletionMessage
from openai.types.chat.chat_completion_message_function_tool_call import (
    ChatCompletionMessageFunctionToolCall,
    Function,
)


@dataclass(frozen=True, slots=True)
class Calls:
    """A tool call that the model makes, its arguments in pieces."""

    id: str
    name: str
    pieces: Sequence[str]


def chunk(model: str, delta: ChoiceDelta | None, **more: Any) -> str:
    """One chunk as JSON; without a delta it has no choices, as the one that tells the usage."""
    choices = [] if delta is None else [Choice(index=0, delta=delta, finish_reason=more.pop("reason", None))]
    made = ChatCompletionChunk(
        id="chatcmpl-1", created=int(time.time()), model=model, object="chat.completion.chunk",
        choices=choices, **more,
    )  # fmt: skip
    return made.model_dump_json(exclude_unset=True)


def usage_of(tokens: tuple[int, int]) -> CompletionUsage:
    given, made = tokens
    return CompletionUsage(prompt_tokens=given, completion_tokens=made, total_tokens=given + made)


def call_deltas(calls: Sequence[Calls]) -> Iterable[ChoiceDelta]:
    for index, call in enumerate(calls):
        begun = ChoiceDeltaToolCallFunction(name=call.name, arguments="")
        first = ChoiceDeltaToolCall(index=index, id=call.id, type="function", function=begun)
        yield ChoiceDelta(content=None, tool_calls=[first])
    for turn in range(max((len(call.pieces) for call in calls), default=0)):
        for index, call in enumerate(calls):
            if turn < len(call.pieces):
                piece = ChoiceDeltaToolCallFunction(arguments=call.pieces[turn])
                yield ChoiceDelta(tool_calls=[ChoiceDeltaToolCall(index=index, function=piece)])


def completion(
    model: str,
    text: str,
    calls: Sequence[Calls] = (),
    reason: Any = "stop",
    tokens: tuple[int, int] | None = None,
) -> bytes:
    """An answer that comes all at once, as JSON."""
    made = [
        ChatCompletionMessageFunctionToolCall(
            id=call.id, type="function", function=Function(name=call.name, arguments="".join(call.pieces))
        )
        for call in calls
    ]
    message = ChatCompletionMessage(role="assistant", content=text or None, tool_calls=made or None)  # type: ignore[arg-type]
    answer = ChatCompletion(
        id="chatcmpl-1", created=int(time.time()), model=model, object="chat.completion",
        choices=[WholeChoice(index=0, message=message, finish_reason=reason, logprobs=None)],
        usage=usage_of(tokens) if tokens else None,
    )  # fmt: skip
    return answer.model_dump_json().encode()
