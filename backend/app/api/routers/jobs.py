"""Jobs: how far long work is, counted from its items."""

from __future__ import annotations

from uuid import UUID

from fastapi import APIRouter

from app.api.dependencies import JobsDep, PageDep, allow
from app.api.schemas.common import ItemError, PageRead
from app.api.schemas.rag import JobItemRead, JobRead, Progress
from app.core.permissions import Permission
from app.db.postgres.models.jobs import WorkState
from app.services.job_service import JobState

router = APIRouter(prefix="/jobs", tags=["jobs"])


def _read(state: JobState) -> JobRead:
    by_state = state.counts.by_state
    open_items = by_state.get(WorkState.QUEUED, 0) + by_state.get(WorkState.RUNNING, 0)
    return JobRead(
        id=state.job.id,
        kind=state.job.kind,
        status=state.status.value,
        stage=state.counts.stage,
        progress=Progress(
            done=state.counts.total - open_items,
            failed=by_state.get(WorkState.FAILED, 0),
            cancelled=by_state.get(WorkState.CANCELLED, 0),
            skipped=state.job.skipped,
            total=state.counts.total,
        ),
        error=ItemError(**state.error) if state.error else None,
        created_at=state.job.created_at,
    )


@router.get("", operation_id="jobs_list", dependencies=[allow(Permission.JOBS_READ)])
async def list_(page: PageDep, jobs: JobsDep) -> PageRead[JobRead]:
    found = await jobs.page(page)
    return PageRead(items=[_read(state) for state in found.items], next_cursor=found.next_cursor)


@router.get("/{job_id}", operation_id="jobs_get", dependencies=[allow(Permission.JOBS_READ)])
async def get(job_id: UUID, jobs: JobsDep) -> JobRead:
    return _read(await jobs.get(job_id))


@router.get("/{job_id}/items", operation_id="jobs_items", dependencies=[allow(Permission.JOBS_READ)])
async def items(job_id: UUID, page: PageDep, jobs: JobsDep) -> PageRead[JobItemRead]:
    found = await jobs.items(job_id, page)
    return PageRead(
        items=[JobItemRead.model_validate(row) for row in found.items], next_cursor=found.next_cursor
    )
