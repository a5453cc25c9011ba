"""Run events as server-sent events (WHATWG HTML, section 9.2), each as it is stored, with heartbeats."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from fastapi.sse import format_sse_event

from app.api.schemas.agents import EventRead
from app.services.runs.streams import LoggedEvent

_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


def event_stream(events: AsyncIterator[LoggedEvent], *, heartbeat_s: float) -> StreamingResponse:
    """`id` is the event's `seq`, for `Last-Event-ID`; a comment follows every quiet `heartbeat_s`."""
    return StreamingResponse(_frames(events, heartbeat_s), media_type="text/event-stream", headers=_HEADERS)


async def _frames(events: AsyncIterator[LoggedEvent], heartbeat_s: float) -> AsyncIterator[bytes]:
    upcoming: asyncio.Task[LoggedEvent] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait({upcoming}, timeout=heartbeat_s)
            if not done:
                yield format_sse_event(comment="heartbeat")
                continue
            try:
                event = upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
            yield _frame(event)
    finally:
        if upcoming is not None:
            upcoming.cancel()


def _frame(event: LoggedEvent) -> bytes:
    body = EventRead.model_validate(event).model_dump_json()
    return format_sse_event(data_str=body, event=event.type, id=str(event.seq))
