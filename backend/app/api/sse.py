"""Server-sent events (WHATWG HTML, section 9.2): events of runs and snapshots of jobs, with heartbeats."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import monotonic
from typing import Annotated, Any, Final, Generic, TypeVar

from anyio import CancelScope
from fastapi import Header
from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel
from starlette.types import Receive, Scope, Send

from app.api.credentials import Standing
from app.core.tasks import end
from app.services.runs.logged_event import LoggedEvent

T = TypeVar("T")

MAX_SEQ = 2**63 - 1
LastEventId = Annotated[int | None, Header(ge=0, le=MAX_SEQ)]

_LAST_EVENTS_S = 1.0
_PIECE_BYTES = 2**16
_HEARTBEAT: Final = format_sse_event(comment="heartbeat")
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def stream_of(model: type[BaseModel]) -> dict[str, dict[str, object]]:
    """The `content` of an answer that is a stream, as the description of the API has it."""
    data = {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"#/components/schemas/{model.__name__}"},
    }
    text = {"type": "string"}
    item = {
        "type": "object",
        "required": ["id", "event", "data"],
        "properties": {"id": text, "event": text, "data": data},
    }
    return {"text/event-stream": {"itemSchema": item}}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How something is now; `id` is equal for equal states. The `last` one will not change any more."""

    id: int
    body: BaseModel
    last: bool


@dataclass(frozen=True, slots=True)
class Reader:
    """Who reads a stream: a comment keeps quiet ones open, and `standing` or `stopping` end them.

    Once `stopping` is set a stream ends soon, between two events: readers come back with the last `id`.
    """

    heartbeat_s: float
    standing: Standing
    stopping: asyncio.Event


def event_stream(batches: AsyncGenerator[Sequence[LoggedEvent], None], reader: Reader) -> StreamingResponse:
    """`id` is the event's `seq`, for `Last-Event-ID`. The stream says in a comment why it ends early."""
    return _Streamed(_pieces(batches, reader, _event_frame))


def snapshot_stream(snapshots: AsyncGenerator[Snapshot, None], reader: Reader) -> StreamingResponse:
    """Events `snapshot`, and `end` for the last one; ends early as `event_stream` does."""
    return _Streamed(_pieces(_one_by_one(snapshots), reader, _snapshot_frame))


async def _one_by_one(snapshots: AsyncGenerator[Snapshot, None]) -> AsyncGenerator[list[Snapshot], None]:
    async with aclosing(snapshots):
        async for snapshot in snapshots:
            yield [snapshot]


class _Streamed(StreamingResponse):
    """Ends when its reader vanishes, too, and closes its source before it returns.

    Starlette's own way to notice that a reader vanished is a task group, which costs more than the events of
    a short run.
    """

    def __init__(self, pieces: AsyncGenerator[bytes, None]) -> None:
        super().__init__(pieces, media_type="text/event-stream", headers=_HEADERS)
        self.pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        streaming = CancelScope()
        listening = asyncio.ensure_future(self._listen(receive, streaming))
        try:
            with streaming:
                async with aclosing(self.pieces):
                    await self.stream_response(send)
        finally:
            await end(listening)

    async def _listen(self, receive: Receive, streaming: CancelScope) -> None:
        await self.listen_for_disconnect(receive)
        streaming.cancel()


async def _pieces(
    batches: AsyncGenerator[Sequence[T], None], reader: Reader, frame: Callable[[T], bytes]
) -> AsyncGenerator[bytes, None]:
    """Events that are known together are sent together: a write to the socket costs more than an event."""
    ahead = _Ahead(batches)
    stop = asyncio.ensure_future(_shortly_after(reader.stopping))
    patience_s = min(reader.heartbeat_s, reader.standing.every_s)
    spoken = monotonic()
    try:
        while (batch := await ahead.within(patience_s, stop)) is not None:
            due = not batch and monotonic() - spoken >= reader.heartbeat_s
            for piece in _joined(map(frame, batch)) if batch else [_HEARTBEAT if due else b""]:
                if ending := await _ending(stop, reader):
                    yield format_sse_event(comment=ending)
                    return
                if piece:
                    yield piece
                    spoken = monotonic()
    finally:
        with CancelScope(shield=True):
            await end(stop)
            await ahead.close()


@dataclass(slots=True)
class _Ahead(Generic[T]):
    """The next batch, awaited for as long as it takes while other things are looked after."""

    batches: AsyncGenerator[Sequence[T], None]
    task: asyncio.Task[Sequence[T] | None] | None = None

    async def within(self, timeout_s: float, stop: asyncio.Future[None]) -> Sequence[T] | None:
        """Empty where none came in time, or before `stop`; None at the end."""
        self.task = self.task or asyncio.ensure_future(anext(self.batches, None))
        either: set[asyncio.Future[Any]] = {self.task, stop}
        await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if not self.task.done():
            return ()
        task, self.task = self.task, None
        return task.result()

    async def close(self) -> None:
        if self.task is not None:
            await end(self.task)
        await self.batches.aclose()


def _joined(frames: Iterable[bytes]) -> Iterator[bytes]:
    """In pieces that a slow reader's connection can hold."""
    piece = b""
    for frame in frames:
        piece += frame
        if len(piece) >= _PIECE_BYTES:
            yield piece
            piece = b""
    if piece:
        yield piece


async def _ending(stop: asyncio.Future[None], reader: Reader) -> str | None:
    """Why nothing more may be sent; None where all is well."""
    if stop.done():
        return "stopping"
    if not await reader.standing.holds():
        doubt = "ended: the credential cannot be checked now, connect again"
        return doubt if reader.standing.in_doubt else "ended: the credential holds no more"
    return None


async def _shortly_after(stopping: asyncio.Event) -> None:
    """Most answers are through within the time."""
    await stopping.wait()
    await asyncio.sleep(_LAST_EVENTS_S)


def _event_frame(event: LoggedEvent) -> bytes:
    """Around the stored text, which is one line, so that it is sent as it was written."""
    ts = event.ts.isoformat().replace("+00:00", "Z")
    return (
        f"event: {event.type}\n"
        f'data: {{"run_id":"{event.run_id}","seq":{event.seq},"ts":"{ts}",'
        f'"node_path":{json.dumps(event.node_path)},"event":{event.text}}}\n'
        f"id: {event.seq}\n\n"
    ).encode()


def _snapshot_frame(snapshot: Snapshot) -> bytes:
    name = "end" if snapshot.last else "snapshot"
    return format_sse_event(data_str=snapshot.body.model_dump_json(), event=name, id=str(snapshot.id))
