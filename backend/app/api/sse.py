"""Server-sent events (WHATWG HTML, section 9.2): events of runs and snapshots of jobs, with heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event
from pydantic import BaseModel

from app.api.credentials import Standing
from app.api.schemas.agents import EventRead
from app.services.runs.streams import LoggedEvent

T = TypeVar("T")

STREAM: dict[str, dict[str, object]] = {"text/event-stream": {"schema": {"type": "string"}}}
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How something is now; `id` is equal for equal states. The `last` one will not change any more."""

    id: int
    body: BaseModel
    last: bool


def event_stream(
    events: AsyncIterator[LoggedEvent], *, heartbeat_s: float, standing: Standing
) -> StreamingResponse:
    """`id` is the event's `seq`, for `Last-Event-ID`; a comment follows every quiet `heartbeat_s`.

    The stream ends, with a comment, when the caller's `standing` holds no more.
    """
    return _streamed(_frames(events, heartbeat_s, standing, _event_frame))


def snapshot_stream(
    snapshots: AsyncIterator[Snapshot], *, heartbeat_s: float, standing: Standing
) -> StreamingResponse:
    """Events `snapshot`, and `end` for the last one; heartbeats and standing as in `event_stream`."""
    return _streamed(_frames(snapshots, heartbeat_s, standing, _snapshot_frame))


def _streamed(frames: AsyncIterator[bytes]) -> StreamingResponse:
    return StreamingResponse(frames, media_type="text/event-stream", headers=_HEADERS)


async def _frames(
    events: AsyncIterator[T], heartbeat_s: float, standing: Standing, frame: Callable[[T], bytes]
) -> AsyncIterator[bytes]:
    upcoming: asyncio.Task[T] | None = None
    spoken = monotonic()
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({upcoming}, timeout=min(heartbeat_s, standing.every_s))
            if not await standing.holds():
                yield format_sse_event(comment="ended: the credential holds no more")
                return
            if not done:
                if monotonic() - spoken >= heartbeat_s:
                    yield format_sse_event(comment="heartbeat")
                    spoken = monotonic()
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield frame(event)
            spoken = monotonic()
    finally:
        if upcoming is not None:
            upcoming.cancel()


def _event_frame(event: LoggedEvent) -> bytes:
    body = EventRead.model_validate(event).model_dump_json()
    return format_sse_event(data_str=body, event=event.type, id=str(event.seq))


def _snapshot_frame(snapshot: Snapshot) -> bytes:
    name = "end" if snapshot.last else "snapshot"
    return format_sse_event(data_str=snapshot.body.model_dump_json(), event=name, id=str(snapshot.id))
