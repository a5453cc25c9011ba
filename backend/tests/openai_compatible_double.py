"""The other side of chat completions: a real HTTP server that answers as it is told, and notes what it saw.

What it sends (`chat_completions`) is made of the types of the vendor's own package, `openai`, and what it
receives is held against them, so that it cannot drift from the protocol. Imports nothing of the platform:

    python -m tests.openai_compatible_double [--port N] [--every-s S] [--text WORDS]

serves until it is stopped, and prints the base URL first.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from openai.types import Model
from openai.types.chat import ChatCompletionMessageParam
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from pydantic import TypeAdapter, ValidationError

from tests.chat_completions import Calls, call_deltas, chunk, completion, usage_of

SSE = "text/event-stream; charset=utf-8"
JSON = "application/json"
_STREAMED: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
_WHOLE: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsNonStreaming)
_MESSAGES: TypeAdapter[Any] = TypeAdapter(list[ChatCompletionMessageParam])


@dataclass(frozen=True, slots=True)
class Received:
    """A request, with header names in lower case. `body` is JSON, or None."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


@dataclass(slots=True)
class Exchange:
    """One request and the way to answer it. Sending raises `ConnectionError` once the caller is gone."""

    received: Received
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    begun: bool = False

    @property
    def model(self) -> str:
        return str(self.received.body.get("model"))

    @property
    def streams(self) -> bool:
        return bool(self.received.body.get("stream"))

    @property
    def wants_usage(self) -> bool:
        return bool((self.received.body.get("stream_options") or {}).get("include_usage"))

    async def answer(self, status: int, body: bytes, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} Answer", f"Content-Length: {len(body)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        await self._write("\r\n".join([*lines, "", ""]).encode() + body)

    async def begin(self, content_type: str = SSE) -> None:
        self.begun = True
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self._write(head.encode())

    async def send(self, data: bytes) -> None:
        if not self.begun:
            await self.begin()
        await self._write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def event(self, data: str) -> None:
        await self.send(f"data: {data}\n\n".encode())

    async def say(self, *deltas: str, every_s: float = 0) -> None:
        for text in deltas:
            await self.wait(every_s)
            await self.event(chunk(self.model, ChoiceDelta(content=text)))

    async def end(self) -> None:
        await self._write(b"0\r\n\r\n")

    async def wait(self, seconds: float | None) -> None:
        """Waits, for ever if None; ends with `ConnectionError` as soon as the caller goes away."""
        if seconds == 0:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.reader.read()  # nothing more is sent before an answer: this is the end
                raise ConnectionResetError("the caller is gone")

    async def _write(self, data: bytes) -> None:
        if self.reader.at_eof():
            raise ConnectionResetError("the caller is gone")
        self.writer.write(data)
        await self.writer.drain()


Script = Callable[[Exchange], Awaitable[None]]


def says(
    *deltas: str,
    calls: Sequence[Calls] = (),
    tokens: tuple[int, int] | None = (7, 5),
    reason: str | None = None,
    every_s: float = 0,
    done: bool = True,
) -> Script:
    """Text, then tool calls whose pieces take turns; `tokens` None: a server that omits usage."""
    ends = reason or ("tool_calls" if calls else "stop")

    async def script(exchange: Exchange) -> None:
        if not exchange.streams:
            await exchange.wait(every_s * len(deltas))
            await exchange.answer(
                200, completion(exchange.model, "".join(deltas), calls, ends, tokens), Content_Type=JSON
            )
            return
        await exchange.event(chunk(exchange.model, ChoiceDelta(role="assistant", content="")))
        await exchange.say(*deltas, every_s=every_s)
        for delta in call_deltas(calls):
            await exchange.wait(every_s)
            await exchange.event(chunk(exchange.model, delta))
        await exchange.event(chunk(exchange.model, ChoiceDelta(), reason=ends))
        if exchange.wants_usage and tokens:
            await exchange.event(chunk(exchange.model, None, usage=usage_of(tokens)))
        if done:
            await exchange.event("[DONE]")
        await exchange.end()

    return script


async def _half(exchange: Exchange, text: str) -> None:
    """The first half of an answer that comes all at once."""
    body = completion(exchange.model, text)
    await exchange.begin(JSON)
    await exchange.send(body[: len(body) // 2])


def whole(text: str, **given: Any) -> Script:
    """A server that ignores `stream`."""

    async def script(exchange: Exchange) -> None:
        exchange.received.body["stream"] = False
        await says(text, **given)(exchange)

    return script


def fails(status: int, message: str = "told to fail", *, code: str | None = None, **headers: str) -> Script:
    """Headers are named with underscores: `Retry_After="2"`."""

    async def script(exchange: Exchange) -> None:
        error = {"message": message, "type": "error", "param": None, "code": code}
        await exchange.answer(status, json.dumps({"error": error}).encode(), Content_Type=JSON, **headers)

    return script


def fails_amid(*deltas: str, error: Any) -> Script:
    """A 200 that turns into an error, or is one where the answer comes all at once."""

    async def script(exchange: Exchange) -> None:
        said = json.dumps({"error": error})
        if not exchange.streams:
            await exchange.answer(200, said.encode(), Content_Type=JSON)
            return
        await exchange.say(*deltas)
        await exchange.event(said)
        await exchange.end()

    return script


def breaks_off(*deltas: str) -> Script:
    """Closes the connection amid the answer."""

    async def script(exchange: Exchange) -> None:
        if exchange.streams:
            await exchange.say(*deltas)
        else:
            await _half(exchange, "".join(deltas))
        exchange.writer.close()

    return script


def hangs(*deltas: str) -> Script:
    """Says something, and then nothing more until the caller goes away."""

    async def script(exchange: Exchange) -> None:
        if deltas and not exchange.streams:
            await _half(exchange, "".join(deltas))
        else:
            await exchange.say(*deltas)
        await exchange.wait(None)

    return script


def sends(*pieces: bytes, content_type: str = SSE) -> Script:
    """Exactly these bytes as the body."""

    async def script(exchange: Exchange) -> None:
        await exchange.begin(content_type)
        for piece in pieces:
            await exchange.send(piece)
        await exchange.end()

    return script


@dataclass(slots=True)
class Double:
    """A listener on loopback. Each call is answered by the next of `scripts`, or else by `usual`.

    `key`: callers without it are refused, as the vendor does. `left` counts callers that went away amid
    an answer; `open` are the answers under way, `most_open` the most there were at once.
    """

    usual: Script
    models: list[str] = field(default_factory=lambda: ["double-1"])
    key: str | None = None
    port: int = 0
    scripts: list[Script] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    left: int = 0
    open: int = 0
    most_open: int = 0
    connections: int = 0
    serving: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def calls(self) -> list[Any]:
        """The bodies of the chat completions asked for."""
        return [one.body for one in self.received if one.path == "/v1/chat/completions"]

    def next(self, *scripts: Script) -> None:
        self.scripts += scripts

    async def until_left(self, callers: int) -> None:
        """Returns once that many callers have gone away amid an answer."""
        async with asyncio.timeout(10):
            while self.left < callers:
                await asyncio.sleep(0.002)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if task := asyncio.current_task():
            self.serving[task] = writer
            task.add_done_callback(self.serving.pop)
        try:
            while received := await _read(reader):
                self.received.append(received)
                await self._answer(Exchange(received, reader, writer))
        except OSError:
            pass  # gone between two requests
        finally:
            writer.close()

    async def _answer(self, exchange: Exchange) -> None:
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            await self._script(exchange.received)(exchange)
        except ConnectionError:
            self.left += 1
        finally:
            self.open -= 1

    def _script(self, received: Received) -> Script:
        if self.key and received.headers.get("authorization") != f"Bearer {self.key}":
            return fails(401, "Incorrect API key provided", code="invalid_api_key")
        match received.method, received.path:
            case "GET", "/v1/models":
                return self._list_models
            case "POST", "/v1/chat/completions":
                wrong = _wrong(received.body)
                if wrong:
                    return fails(400, wrong, code="invalid_request_error")
                return self.scripts.pop(0) if self.scripts else self.usual
        return fails(404, f"there is no {received.method} {received.path}")

    async def _list_models(self, exchange: Exchange) -> None:
        listed = [Model(id=name, created=0, object="model", owned_by="double") for name in self.models]
        body = {"object": "list", "data": [model.model_dump() for model in listed]}
        await exchange.answer(200, json.dumps(body).encode(), Content_Type=JSON)


def _wrong(body: Any) -> str:
    """What the vendor's own types say is wrong with a request."""
    try:
        (_STREAMED if body.get("stream") else _WHOLE).validate_python(body)
        _MESSAGES.validate_python(body["messages"])
    except (AttributeError, ValidationError) as error:
        return str(error)
    return ""


async def _read(reader: asyncio.StreamReader) -> Received | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, path, _ = first.split(" ", 2)
    raw = await reader.readexactly(int(headers.get("content-length", 0)))
    return Received(method, path, headers, json.loads(raw) if raw else None)


@asynccontextmanager
async def double(usual: Script | None = None, *, port: int = 0, **given: Any) -> AsyncIterator[Double]:
    """Listens on loopback, on a free port unless one is given."""
    made = Double(usual or says("Hello", " there", "."), **given)
    server = await asyncio.start_server(made.serve, "127.0.0.1", port, limit=2**24)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.serving.values():
            writer.transport.abort()
        await asyncio.gather(*made.serving)


async def _main() -> None:
    parser = argparse.ArgumentParser(description="An OpenAI-compatible server for tests.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--every-s", type=float, default=0.02)
    parser.add_argument("--text", default="This is what the double says [1].")
    given = parser.parse_args()
    words = [f"{word} " for word in given.text.split()]
    async with double(says(*words, every_s=given.every_s), port=given.port) as made:
        print(made.base_url, flush=True)  # noqa: T201
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main())
