"""How whoever makes a run hears of it: at once, when it has ended, or event by event."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from fastapi import Request, Response

from app.api.dependencies import get_reader, get_resources
from app.api.schemas.agents import EventRead, RunRead
from app.api.sse import event_stream, stream_of
from app.db.postgres.models.agents import SUSPENDED, AgentRun, RunMode
from app.services.run_service import CreatedRun, RunService

ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": stream_of(EventRead)},
    202: {"model": RunRead, "description": "Queued, or still running; follow `Location`"},
}
"""What the routes that make runs document besides `RunRead`."""


def mode_of(request: Request, mode: str, *, given: bool) -> RunMode:
    """Without a mode in the body, the header `Accept` may ask for the stream."""
    accepts_stream = "text/event-stream" in request.headers.get("accept", "")
    return RunMode.STREAM if accepts_stream and not given else RunMode(mode)


async def stream_answer(request: Request, runs: RunService, run_id: UUID, *, after: int) -> Response:
    """The run's events from `after` + 1 on."""
    stream = event_stream(runs.follow(run_id, after=after), await get_reader(request))
    stream.headers["Location"] = _location(run_id)
    return stream


async def run_answer(
    request: Request,
    response: Response,
    runs: RunService,
    made: AgentRun | CreatedRun,
    *,
    mode: RunMode,
    wait_timeout_s: float | None,
) -> RunRead:
    """The run at once, or as it is when it has ended, or waits for somebody; at the latest after the time."""
    ended = made
    if mode is RunMode.WAIT:
        settings = (await get_resources(request)).settings
        timeout_s = wait_timeout_s or settings.run_wait_timeout_s
        if "idempotency-key" in request.headers:
            # Repetitions are answered from the database, which orders names its own way.
            ended = await runs.wait(made.id, timeout_s=timeout_s)
        else:
            ended = await runs.outcome(made, timeout_s=timeout_s)
    over = ended.finished_at is not None or ended.status in SUSPENDED
    if not over or mode is RunMode.BACKGROUND:
        response.status_code = 202
        response.headers["Location"] = _location(made.id)
    return RunRead.model_validate(ended)


def _location(run_id: UUID) -> str:
    return f"/api/v1/runs/{run_id}"
