"""Event streams on bare sockets: read to any event, cut in any way, bytes kept as they came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tests.trust.serving import KEY

TERMINAL = (b"RUN_FINISHED", b"RUN_ERROR")
_SILENCE_S = 60
"""After so long without a byte a stream counts as broken; heartbeats come more often."""


@dataclass(slots=True)
class Stream:
    """The answer to one request, on a connection of its own."""

    status: int
    headers: Mapping[str, str]
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def frames(self) -> AsyncIterator[bytes]:
        """Events as they come, each with its lines and without the empty one; comments are left out."""
        rest = b""
        async for part in self._body():
            *whole, rest = (rest + part).split(b"\n\n")
            for block in whole:
                if not block.startswith(b":"):
                    yield block

    async def text(self) -> str:
        return b"".join([part async for part in self._body()]).decode()

    def vanish(self) -> None:
        """Resets the connection: nothing is said, and what has not been read is lost."""
        self.writer.transport.abort()

    async def _body(self) -> AsyncIterator[bytes]:
        if "content-length" in self.headers:
            yield await self.reader.readexactly(int(self.headers["content-length"]))
            return
        while size := int(await self._line(), 16):
            yield (await self._within(self.reader.readexactly(size + 2)))[:-2]
        await self._line()

    async def _line(self) -> bytes:
        line: bytes = await self._within(self.reader.readuntil(b"\r\n"))
        return line[:-2]

    async def _within(self, reading: Any) -> bytes:
        async with asyncio.timeout(_SILENCE_S):
            found: bytes = await reading
            return found


@asynccontextmanager
async def opened(
    url: str, path: str, *, body: Any = None, headers: Mapping[str, str] | None = None
) -> AsyncIterator[Stream]:
    """A GET of `path`, or a POST of `body`; the connection is closed on leaving."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    try:
        writer.write(_request(place.netloc, path, body, headers or {}))
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        named = (line.partition(": ") for line in head[1:] if line)
        yield Stream(
            int(head[0].split()[1]), {name.lower(): value for name, _, value in named}, reader, writer
        )
    finally:
        writer.close()


def _request(host: str, path: str, body: Any, headers: Mapping[str, str]) -> bytes:
    content = b"" if body is None else json.dumps(body).encode()
    sent = {
        "Host": host,
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **headers,
    }
    lines = [f"{'GET' if body is None else 'POST'} /api/v1{path} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in sent.items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


async def read(url: str, run_id: str, *, after: int = 0, by_header: bool = False) -> list[bytes]:
    """A run's events after `after` to the end, said in the query or in `Last-Event-ID`."""
    path = f"/runs/{run_id}/events" + ("" if by_header or not after else f"?after={after}")
    headers = {"Last-Event-ID": str(after)} if by_header else {}
    async with opened(url, path, headers=headers) as stream:
        assert stream.status == 200, await stream.text()
        return [frame async for frame in stream.frames()]


async def first(stream: Stream, count: int) -> list[bytes]:
    """The first `count` events, fewer where it ends before."""
    seen: list[bytes] = []
    if count:
        async for frame in stream.frames():
            seen.append(frame)
            if len(seen) == count:
                break
    return seen


def sequence(frames: list[bytes]) -> list[int]:
    """The `id` of each event."""
    return [int(_field(frame, b"id")) for frame in frames]


def names(frames: list[bytes]) -> list[bytes]:
    """The `event` of each."""
    return [_field(frame, b"event") for frame in frames]


def event_of(frame: bytes) -> dict[str, Any]:
    """The AG-UI event in it."""
    event: dict[str, Any] = json.loads(_field(frame, b"data"))["event"]
    return event


def path_of(frame: bytes) -> str:
    """The node that tells it."""
    return str(json.loads(_field(frame, b"data"))["node_path"])


def spoken(frames: list[bytes]) -> str:
    """The assistant's text of a run."""
    events = map(event_of, frames)
    return "".join(event["delta"] for event in events if event["type"] == "TEXT_MESSAGE_CONTENT")


def run_of(frames: list[bytes]) -> str:
    return str(json.loads(_field(frames[0], b"data"))["run_id"])


def check_whole(frames: list[bytes]) -> None:
    """Gapless from 1, begun once, ended once."""
    assert sequence(frames) == list(range(1, len(frames) + 1))
    said = names(frames)
    assert [name for name in said if name in TERMINAL] == said[-1:], said
    assert [place for place, name in enumerate(said) if name == b"RUN_STARTED"] == [0], said


def _field(frame: bytes, name: bytes) -> bytes:
    lines = (line.partition(b": ") for line in frame.split(b"\n"))
    return next(value for key, _, value in lines if key == name)
