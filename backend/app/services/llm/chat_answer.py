"""The answer of `POST /chat/completions`, put together from its chunks, as servers really send them.

Made for one answer each, and for the path that every token takes: no models, no copies.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.agent.core.interfaces import (
    ChatEvent,
    Finished,
    FinishReason,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
)
from app.core.ids import new_id

_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_DONE = b"[DONE]"


class Malformed(Exception):
    """What was sent is no answer of this protocol; says what it is instead. `said` is to be quoted before.

    It is kept whole: whoever quotes it takes out first what must not be shown.
    """

    def __init__(self, what: str, said: Any = None) -> None:
        super().__init__(what)
        self.what = what
        self.said = said


class Reported(Exception):
    """The server reports a failure within an answer that had begun well."""

    def __init__(self, error: Any) -> None:
        super().__init__()
        self.error = error


class EventData:
    """The `data` of server-sent events (WHATWG HTML, 9.2.6), cut out of the bytes as they arrive."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._lines: list[bytes] = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Raises `Malformed` for an event that is too large."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._line(line)
        if len(self._rest) + sum(map(len, self._lines)) > self._max_bytes:
            raise Malformed(f"an event is larger than {self._max_bytes} bytes, the most that is taken")

    def end(self) -> Iterator[bytes]:
        """What was sent without the empty line that ends an event."""
        yield from self._line(self._rest)
        yield from self._line(b"")

    def _line(self, line: bytes) -> Iterator[bytes]:
        if line.startswith(b"data:"):
            self._lines.append(line[5:].strip())
        elif self._lines and not line.strip():
            yield self._lines[0] if len(self._lines) == 1 else b"\n".join(self._lines)
            self._lines.clear()


@dataclass(slots=True)
class _Call:
    id: str
    name: str = ""
    arguments: list[str] = field(default_factory=list)
    told: bool = False


@dataclass(slots=True)
class ChatAnswer:
    """What has been said so far. `begun`: a chunk has come; `done`: the server said that nothing follows."""

    begun: bool = False
    done: bool = False
    reason: str | None = None
    usage: Usage = field(default_factory=Usage)
    refused: bool = False
    calls: list[_Call] = field(default_factory=list)
    at: dict[int, _Call] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        return self.begun and (self.done or self.reason is not None)

    def take(self, data: bytes) -> Sequence[ChatEvent]:
        """The events that one chunk makes; most make one. Raises `Malformed`, `Reported`."""
        if data == _DONE:
            self.done = True
            return ()
        try:
            chunk = json.loads(data)
        except ValueError:
            raise Malformed("is not JSON", data) from None
        return self.take_object(chunk, "delta")

    def take_whole(self, body: bytes) -> Sequence[ChatEvent]:
        """The events of an answer that was not streamed."""
        try:
            whole = json.loads(body)
        except ValueError:
            raise Malformed("is not JSON", body) from None
        events = self.take_object(whole, "message")
        if not whole.get("choices"):
            raise Malformed("the answer holds no choices")
        self.done = True
        return events

    def take_object(self, chunk: Any, part: str) -> Sequence[ChatEvent]:
        if not isinstance(chunk, dict):
            raise Malformed("is not the object that a chunk is", chunk)
        if chunk.get("error") is not None or chunk.get("object") == "error":
            raise Reported(chunk.get("error") or chunk)
        self.begun = True
        if used := chunk.get("usage"):
            self.usage = _usage(used)
        choices = chunk.get("choices")
        if not choices:
            return ()
        try:
            return self._choice(choices[0], part)
        except (AttributeError, KeyError, TypeError) as error:
            raise Malformed("are not the choices of a chat completion", choices) from error

    def finish(self) -> Iterator[ChatEvent]:
        """What ends the stream: the tool calls as a whole, and how it ended."""
        for call in self.calls:
            yield ToolCall(call.id, call.name, "".join(call.arguments) or "{}")
        reason = _REASONS.get(self.reason or "stop", "stop")
        if self.refused:
            reason = "content_filter"
        elif self.calls and reason == "stop":
            reason = "tool_calls"
        yield Finished(reason, self.usage)

    def _choice(self, choice: Any, part: str) -> Sequence[ChatEvent]:
        if reason := choice.get("finish_reason"):
            self.reason = reason
        said = choice.get(part)
        if not said:
            return ()
        text = said.get("content")
        events: list[ChatEvent] = []
        if text:
            events.append(TextDelta(text if type(text) is str else _joined(text)))
        if refusal := said.get("refusal"):
            self.refused = True
            events.append(TextDelta(refusal))
        for piece in said.get("tool_calls") or ():
            events += self._call(piece)
        return events

    def _call(self, piece: Any) -> Iterator[ChatEvent]:
        """Arguments are told once the tool's name is known."""
        call = self._called(piece)
        function = piece.get("function") or {}
        call.name = call.name or function.get("name") or ""
        arguments = function.get("arguments") or ""
        if not isinstance(arguments, str):  # some servers send the object itself
            arguments = json.dumps(arguments, ensure_ascii=False)
        if arguments:
            call.arguments.append(arguments)
        if call.name and (arguments or not call.told):
            said = arguments if call.told else "".join(call.arguments)
            call.told = True
            yield ToolCallDelta(call.id, call.name, said)

    def _called(self, piece: Any) -> _Call:
        """The call that a piece belongs to: by its index, or else by its id; some servers send only one."""
        index, name = piece.get("index"), piece.get("id") or ""
        if index is None:
            known = [call for call in self.calls if call.id == name] if name else self.calls[-1:]
            found = known[0] if known else None
        else:
            found = self.at.get(index)
        if found is None or (name and found.id != name and found.told):
            found = _Call(name or f"call_{new_id().hex}")
            self.calls.append(found)
            if index is not None:
                self.at[index] = found
        return found


def _usage(used: Any) -> Usage:
    if not isinstance(used, dict):
        return Usage()
    return Usage(_count(used.get("prompt_tokens")), _count(used.get("completion_tokens")))


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _joined(parts: Any) -> str:
    """The text of a content that is a list of parts."""
    return "".join(part.get("text") or "" for part in parts if isinstance(part, dict))
