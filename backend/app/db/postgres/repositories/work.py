"""Jobs and work items: what was asked for, how far it is, and the guard that fences late writers off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, TextClause, bindparam, delete, func, select, text, update

from app.core.errors import AppError
from app.db.base import Json
from app.db.postgres.models.jobs import Job, WorkItem, WorkState
from app.db.postgres.repositories.base import Repository
from app.db.session import Tenant

OPEN = (WorkState.QUEUED, WorkState.RUNNING)


class LeaseLost(AppError):
    """Another worker holds the item now, or it was cancelled: whatever we were about to write is void."""

    status, code, title = 409, "lease_lost", "Lease lost"


def _seconds(seconds: float) -> TextClause:
    return text("make_interval(secs => :seconds)").bindparams(bindparam("seconds", seconds, unique=True))


@dataclass(frozen=True, slots=True)
class Claim:
    """A work item that this process holds under `fence`. `age_s` is how long ago it was queued.

    `deaths` is how many holders fell silent with it; `alone` asks its holder for no other work beside it.
    """

    org_id: UUID
    id: UUID
    project_id: UUID
    kind: str
    subject_id: UUID
    attempts: int
    fence: int
    deaths: int = 0
    alone: bool = False
    size_bytes: int = 0
    job_id: UUID | None = None
    payload: Json = field(default_factory=dict)
    age_s: float = 0
    lease_s: float = 30

    @property
    def tenant(self) -> Tenant:
        return Tenant(self.org_id, self.project_id)


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Items of one job by state, and the stage that most of its running items are in."""

    by_state: dict[WorkState, int]
    stage: str | None = None

    @property
    def total(self) -> int:
        return sum(self.by_state.values())


class Jobs(Repository[Job]):
    """Jobs of one project."""

    model = Job
    noun = "job"

    async def counts(self, job_ids: Sequence[UUID]) -> dict[UUID, JobCounts]:
        """Counted from the items, so that no crash can leave a job's figures wrong."""
        columns = (WorkItem.job_id, WorkItem.state, WorkItem.stage)
        statement = (
            select(*columns, func.count())
            .where(WorkItem.org_id == self.tenant.org_id, WorkItem.job_id.in_(job_ids))
            .group_by(*columns)
        )
        states: dict[UUID, dict[WorkState, int]] = {job_id: {} for job_id in job_ids}
        stages: dict[UUID, dict[str, int]] = {job_id: {} for job_id in job_ids}
        for job_id, state, stage, count in await self.session.execute(statement):
            if job_id is None:
                continue
            states[job_id][state] = states[job_id].get(state, 0) + count
            if state is WorkState.RUNNING and stage:
                stages[job_id][stage] = stages[job_id].get(stage, 0) + count
        return {
            job_id: JobCounts(
                states[job_id], max(stages[job_id], key=stages[job_id].__getitem__, default=None)
            )
            for job_id in job_ids
        }


class WorkItems(Repository[WorkItem]):
    """Work items of one project."""

    model = WorkItem
    noun = "job item"

    async def guard(self, claim: Claim, *, stage: str | None = None) -> None:
        """Fails with `LeaseLost` unless `claim` still holds its item; locks and prolongs it.

        Every transaction that writes on behalf of an item begins with this.
        """
        values: dict[str, Any] = {"lease_until": func.now() + _seconds(claim.lease_s)}
        if stage:
            values["stage"] = stage
        done = await self.session.execute(self._held(claim).values(**values).returning(WorkItem.id))
        if done.scalar_one_or_none() is None:
            raise LeaseLost(f"The lease of work item {claim.id} is lost.")

    async def finish(self, claim: Claim, state: WorkState, *, error: Json | None = None) -> None:
        """Ends the item; `LeaseLost` where it is no longer ours."""
        statement = self._held(claim).values(
            state=state, error=error, finished_at=func.now(), lease_until=None, lease_owner=None
        )
        if (await self.session.execute(statement.returning(WorkItem.id))).scalar_one_or_none() is None:
            raise LeaseLost(f"The lease of work item {claim.id} is lost.")

    async def retry_later(
        self, claim: Claim, *, delay_s: float, error: Json | None, counted: bool = True
    ) -> None:
        """Puts the item back into its queue, due in `delay_s`."""
        statement = self._held(claim).values(
            state=WorkState.QUEUED,
            attempts=WorkItem.attempts - (0 if counted else 1),
            error=error,
            due_at=func.now() + _seconds(delay_s),
            lease_until=None,
            lease_owner=None,
            alone=False,
            deaths=0,  # its worker lives
        )
        await self.session.execute(statement)

    async def pause(self, claim: Claim, *, delay_s: float) -> None:
        """Puts the item back without counting the attempt: it waits for others."""
        await self.retry_later(claim, delay_s=delay_s, error=None, counted=False)

    async def trust(self, claim: Claim) -> None:
        """Others may be worked on beside the item: should the worker die now, it is not known of what."""
        await self.session.execute(self._held(claim).values(alone=False))

    async def postpone(self, item_id: UUID, *, delay_s: float) -> bool:
        """Makes an item due in `delay_s`; False where somebody has claimed it already."""
        due_at = func.now() + _seconds(delay_s)
        statement = update(WorkItem).where(*self._unclaimed(item_id)).values(due_at=due_at)
        return (await self.session.execute(statement.returning(WorkItem.id))).first() is not None

    async def withdraw(self, item_id: UUID) -> bool:
        """Deletes an item; False where somebody has claimed it already."""
        statement = delete(WorkItem).where(*self._unclaimed(item_id)).returning(WorkItem.id)
        return (await self.session.execute(statement)).first() is not None

    async def has_open(self, subject_id: UUID, kind: str) -> bool:
        statement = select(WorkItem.id).where(
            WorkItem.org_id == self.tenant.org_id,
            WorkItem.subject_id == subject_id,
            WorkItem.kind == kind,
            WorkItem.state.in_(OPEN),
        )
        return (await self.session.execute(statement.limit(1))).first() is not None

    async def cancel_open(self, subject_ids: Sequence[UUID]) -> None:
        """Cancels whatever is queued or running for these; its workers lose their leases."""
        statement = (
            update(WorkItem)
            .where(
                WorkItem.org_id == self.tenant.org_id,
                WorkItem.subject_id.in_(subject_ids),
                WorkItem.state.in_(OPEN),
            )
            .values(
                state=WorkState.CANCELLED,
                finished_at=func.now(),
                fence=WorkItem.fence + 1,
                lease_until=None,
                lease_owner=None,
            )
        )
        await self.session.execute(statement)

    async def open_in_job(self, job_id: UUID) -> int:
        statement = select(func.count()).where(
            WorkItem.org_id == self.tenant.org_id, WorkItem.job_id == job_id, WorkItem.state.in_(OPEN)
        )
        return (await self.session.execute(statement)).scalar_one()

    def _unclaimed(self, item_id: UUID) -> tuple[ColumnElement[bool], ...]:
        mine = (WorkItem.org_id == self.tenant.org_id, WorkItem.id == item_id)
        return *mine, WorkItem.state == WorkState.QUEUED, WorkItem.fence == 0

    def _held(self, claim: Claim) -> Any:
        return (
            update(WorkItem)
            .where(
                WorkItem.org_id == claim.org_id,
                WorkItem.id == claim.id,
                WorkItem.fence == claim.fence,
                WorkItem.state == WorkState.RUNNING,
            )
            .execution_options(synchronize_session=False)
        )
