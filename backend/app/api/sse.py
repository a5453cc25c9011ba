"""Run events as server-sent events (WHATWG HTML, section 9.2), each as it is stored, with heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from app.api.credentials import Standing
from app.api.schemas.agents import EventRead
from app.services.runs.streams import LoggedEvent

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event_stream(
    events: AsyncIterator[LoggedEvent], *, heartbeat_s: float, standing: Standing
) -> StreamingResponse:
    """`id` is the event's `seq`, for `Last-Event-ID`; a comment follows every quiet `heartbeat_s`.

    The stream ends, with a comment, when the caller's `standing` holds no more.
    """
    frames = _frames(events, heartbeat_s, standing)
    return StreamingResponse(frames, media_type="text/event-stream", headers=_HEADERS)


async def _frames(
    events: AsyncIterator[LoggedEvent], heartbeat_s: float, standing: Standing
) -> AsyncIterator[bytes]:
    upcoming: asyncio.Task[LoggedEvent] | None = None
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
            yield _frame(event)
            spoken = monotonic()
    finally:
        if upcoming is not None:
            upcoming.cancel()


def _frame(event: LoggedEvent) -> bytes:
    body = EventRead.model_validate(event).model_dump_json()
    return format_sse_event(data_str=body, event=event.type, id=str(event.seq))
