"""Jobs: how far long work is, counted from its items; watched, cancelled, tried again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated
from uuid import UUID

from fastapi import Header, Query
from fastapi.responses import StreamingResponse

from app.api.dependencies import JobsDep, ReaderDep, ResourcesDep, allow, paged
from app.api.idempotency import idempotent, without_key
from app.api.native import native_router
from app.api.schemas.common import ItemError, PageRead, page_of
from app.api.schemas.rag import JobItemRead, JobRead, Progress
from app.api.sse import Snapshot, snapshot_stream, stream_of
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.jobs import JobKind, WorkState
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.services.job_service import JobFilters, JobState

router = native_router("/jobs", tag="jobs")
_MAX_MARK = 2**48 - 1


def _read(state: JobState) -> JobRead:
    counts = state.counts
    return JobRead(
        id=state.job.id,
        kind=state.job.kind,
        status=state.status.value,
        stage=counts.stage,
        progress=Progress(
            done=counts.total - counts.open,
            failed=counts.by_state[WorkState.FAILED],
            cancelled=counts.by_state[WorkState.CANCELLED],
            skipped=state.job.skipped,
            total=counts.total,
        ),
        eta_s=counts.eta_s,
        error=ItemError(**state.error) if state.error else None,
        created_at=state.job.created_at,
    )


@router.get("", operation_id="jobs_list", summary="List jobs", dependencies=[allow(Permission.JOBS_READ)])
async def list_(
    page: Annotated[PageRequest, paged(Jobs)],
    jobs: JobsDep,
    status: Annotated[list[WorkState] | None, Query(description="Repeat it for any of several")] = None,
    kind: Annotated[list[JobKind] | None, Query(description="Repeat it for any of several")] = None,
) -> PageRead[JobRead]:
    """Each with its progress. `status` and `kind` narrow the list."""
    return page_of(await jobs.page(page, JobFilters(statuses=status or (), kinds=kind or ())), _read)


@router.get(
    "/{job_id}", operation_id="jobs_get", summary="Get a job", dependencies=[allow(Permission.JOBS_READ)]
)
async def get(job_id: UUID, jobs: JobsDep) -> JobRead:
    """Progress is counted from its items; `eta_s` is an estimate from what was done of late."""
    return _read(await jobs.get(job_id))


@router.get(
    "/{job_id}/items",
    operation_id="jobs_items",
    summary="List items of a job",
    dependencies=[allow(Permission.JOBS_READ)],
)
async def items(
    job_id: UUID,
    page: Annotated[PageRequest, paged(WorkItems)],
    jobs: JobsDep,
    status: Annotated[list[WorkState] | None, Query(description="Repeat it for any of several")] = None,
) -> PageRead[JobItemRead]:
    """What the job consists of, each with its state and the reason of its failure."""
    return page_of(await jobs.items(job_id, page, statuses=status or ()), JobItemRead.model_validate)


@router.get(
    "/{job_id}/events",
    operation_id="jobs_events",
    summary="Watch a job",
    dependencies=[allow(Permission.JOBS_READ)],
    response_class=StreamingResponse,
    responses={200: {"content": stream_of(JobRead)}},
)
async def events(
    job_id: UUID,
    jobs: JobsDep,
    resources: ResourcesDep,
    reader: ReaderDep,
    last_event_id: Annotated[int | None, Header(ge=0, le=_MAX_MARK)] = None,
) -> StreamingResponse:
    """The job as `GET` shows it, whenever it has changed; the event `end` when it has ended.

    With `Last-Event-ID` it begins with the first snapshot that differs from the one that was seen.
    """
    await jobs.get(job_id)
    settings = resources.settings
    states = jobs.follow(job_id, seen=last_event_id, every_s=settings.job_poll_interval_s)
    return snapshot_stream(_snapshots(states), reader)


async def _snapshots(states: AsyncGenerator[JobState, None]) -> AsyncGenerator[Snapshot, None]:
    async with aclosing(states):
        async for state in states:
            yield Snapshot(state.mark, _read(state), last=state.ended)


@router.post(
    "/{job_id}/cancel",
    operation_id="jobs_cancel",
    summary="Cancel a job",
    dependencies=[allow(Permission.JOBS_WRITE), without_key("a job ends once")],
)
async def cancel(job_id: UUID, jobs: JobsDep) -> JobRead:
    """Ends what is open; one that has ended stays as it is. 409 for erasures: what was deleted goes."""
    return _read(await jobs.cancel(job_id))


@router.post(
    "/{job_id}/retry",
    status_code=202,
    operation_id="jobs_retry",
    summary="Retry a job",
    dependencies=[allow(Permission.JOBS_WRITE), idempotent()],
)
async def retry(job_id: UUID, jobs: JobsDep) -> JobRead:
    """Queues what failed or was cancelled again; 409 where there is nothing like that."""
    return _read(await jobs.retry(job_id))
