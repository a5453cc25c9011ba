"""Runs: what was asked, what came of it, and the log of how."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query
from fastapi.responses import StreamingResponse

from app.api.dependencies import ReaderDep, ResourcesDep, RunsDep, allow, paged
from app.api.idempotency import without_key
from app.api.native import native_router
from app.api.schemas.agents import (
    EventRead,
    RunRead,
    RunSummary,
    StepRead,
    TimelineEntryRead,
    TimelineRead,
)
from app.api.schemas.common import Moment, PageRead, page_of
from app.api.sse import MAX_SEQ, LastEventId, event_stream, stream_of
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import RunStatus
from app.db.postgres.repositories.agents import Runs, RunSteps
from app.services.run_service import RunFilters

router = native_router("/runs", tag="runs")

CANCEL_WITHIN_S = 5.0


@router.get("", operation_id="runs_list", summary="List runs", dependencies=[allow(Permission.AGENTS_READ)])
async def list_(
    page: Annotated[PageRequest, paged(Runs)],
    runs: RunsDep,
    status: Annotated[list[RunStatus] | None, Query(description="Repeat it for any of several")] = None,
    agent: Annotated[str | None, Query(description="Id or slug")] = None,
    version: Annotated[str | None, Query(description="An id, or a number of `agent`")] = None,
    created_after: Moment | None = None,
    created_before: Moment | None = None,
    q: Annotated[
        str | None,
        Query(min_length=1, max_length=200, description="Begins the id, or is in a value of input or output"),
    ] = None,
) -> PageRead[RunSummary]:
    """Without inputs and outputs. `q` looks into the newest of the runs for which the other filters hold
    (10,000 by default): `created_before` reaches further back."""
    filters = RunFilters(
        statuses=status or (),
        agent=agent,
        version=version,
        created_after=created_after,
        created_before=created_before,
        q=q,
    )
    return page_of(await runs.page(page, filters), RunSummary.model_validate)


@router.get(
    "/{run_id}", operation_id="runs_get", summary="Get a run", dependencies=[allow(Permission.AGENTS_READ)]
)
async def get(run_id: UUID, runs: RunsDep) -> RunRead:
    """With input, output and usage."""
    return RunRead.model_validate(await runs.get(run_id))


@router.get(
    "/{run_id}/steps",
    operation_id="runs_steps",
    summary="List steps of a run",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def steps(
    run_id: UUID, page: Annotated[PageRequest, paged(RunSteps)], runs: RunsDep
) -> PageRead[StepRead]:
    """What each node that is not pure did, in the order in which they began."""
    return page_of(await runs.steps(run_id, page), StepRead.model_validate)


@router.get(
    "/{run_id}/timeline",
    operation_id="runs_timeline",
    summary="Show the timeline of a run",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def timeline(
    run_id: UUID,
    runs: RunsDep,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="The `next` of the part before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 200,
) -> TimelineRead:
    """What each node read, did and gave, in the order in which they began; also of a run that goes on."""
    found = await runs.timeline(run_id)
    later = [entry for entry in found.entries if entry.seq > after]
    part = later[:limit]
    return TimelineRead(
        items=[TimelineEntryRead.model_validate(entry) for entry in part],
        next=part[-1].seq if len(later) > limit else None,
        incomplete=found.incomplete,
    )


@router.get(
    "/{run_id}/events",
    operation_id="runs_events",
    summary="Stream events of a run",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_class=StreamingResponse,
    responses={200: {"content": stream_of(EventRead)}},
)
async def events(
    run_id: UUID,
    runs: RunsDep,
    resources: ResourcesDep,
    reader: ReaderDep,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="The last `seq` that was seen")] = 0,
    last_event_id: LastEventId = None,
) -> StreamingResponse:
    """The run's log from event `after` + 1 until it ends, as it is stored."""
    followed = await runs.events(run_id, after=max(after, last_event_id or 0))
    return event_stream(followed, reader)


@router.post(
    "/{run_id}/cancel",
    operation_id="runs_cancel",
    summary="Cancel a run",
    dependencies=[allow(Permission.AGENTS_RUN), without_key("a run ends once")],
)
async def cancel(
    run_id: UUID,
    runs: RunsDep,
    wait: Annotated[bool, Query(description="Answer only when the run has ended (within 5 s)")] = False,
) -> RunRead:
    """Ends a run; one that has ended stays as it is."""
    run = await runs.cancel(run_id)
    if wait and run.finished_at is None:
        run = await runs.wait(run_id, timeout_s=CANCEL_WITHIN_S, suspended=False)
    return RunRead.model_validate(run)
