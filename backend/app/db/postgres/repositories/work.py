"""Jobs and work items: what was asked for, how far it is, and the guard that fences late writers off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    TextClause,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    text,
    update,
)

from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError
from app.core.ids import new_id
from app.db.base import Json
from app.db.postgres.models.jobs import Job, JobKind, WorkItem, WorkKind, WorkState
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts
from app.db.postgres.repositories.stages import PROLONG
from app.db.session import Tenant, wake_after

OPEN = (WorkState.QUEUED, WorkState.RUNNING)
_RATE_WINDOW = text("interval '5 minutes'")


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
class Asked:
    """What an item was queued for."""

    item_id: UUID
    kind: str
    subject_id: UUID
    payload: Json


_ASKED = (WorkItem.id, WorkItem.kind, WorkItem.subject_id, WorkItem.payload)


@dataclass(slots=True)
class JobCounts:
    """Items of one job by state, the stages that its running ones are in, and how fast they end."""

    by_state: Counter[WorkState] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    lately: int = 0
    since: datetime | None = None
    now: datetime | None = None

    @property
    def total(self) -> int:
        return self.by_state.total()

    @property
    def open(self) -> int:
        return sum(self.by_state[state] for state in OPEN)

    @property
    def status(self) -> WorkState:
        """`running` while anything is open; then `failed` if one item failed, `cancelled` if one was.

        `Jobs.status` is the same in SQL.
        """
        if self.by_state[WorkState.RUNNING]:
            return WorkState.RUNNING
        if self.by_state[WorkState.QUEUED]:
            return WorkState.QUEUED if self.by_state[WorkState.QUEUED] == self.total else WorkState.RUNNING
        for state in (WorkState.FAILED, WorkState.CANCELLED):
            if self.by_state[state]:
                return state
        return WorkState.SUCCEEDED

    @property
    def stage(self) -> str | None:
        """That of most running items."""
        return max(self.stages, key=lambda stage: (self.stages[stage], stage), default=None)

    @property
    def eta_s(self) -> float | None:
        """How long the open items take at the rate of late; None where that is not known."""
        if not (self.open and self.lately and self.since and self.now):
            return None
        return round(self.open * (self.now - self.since).total_seconds() / self.lately, 1)


class Jobs(Repository[Job]):
    """Jobs of one project."""

    model = Job
    noun = "job"
    sorts: ClassVar[Sorts] = {"created_at": Job.created_at}

    async def open(self, kind: JobKind, subject_id: UUID) -> Job:
        """A new job; its items are queued in the same transaction."""
        tenant = self.tenant
        return await self.add(
            Job(
                org_id=tenant.org_id, id=new_id(), project_id=tenant.project, kind=kind, subject_id=subject_id
            )
        )

    def status(self) -> ColumnElement[str]:
        """A job's status, computed from its items as `JobCounts.status` does."""
        any_item = (
            select(WorkItem.id).where(WorkItem.org_id == Job.org_id, WorkItem.job_id == Job.id).correlate(Job)
        )

        def some(*states: WorkState) -> ColumnElement[bool]:
            return any_item.where(WorkItem.state.in_(states)).exists()

        others = [state for state in WorkState if state is not WorkState.QUEUED]
        return case(
            (some(WorkState.RUNNING), WorkState.RUNNING.value),
            (and_(some(WorkState.QUEUED), some(*others)), WorkState.RUNNING.value),
            *((some(s), s.value) for s in (WorkState.QUEUED, WorkState.FAILED, WorkState.CANCELLED)),
            else_=WorkState.SUCCEEDED.value,
        )

    async def counts(self, job_ids: Sequence[UUID]) -> dict[UUID, JobCounts]:
        """Counted from the items, so that no crash can leave a job's figures wrong."""
        columns = (WorkItem.job_id, WorkItem.state, WorkItem.stage)
        recent = or_(WorkItem.finished_at.is_(None), WorkItem.finished_at > func.now() - _RATE_WINDOW)
        statement = (
            select(
                *columns,
                func.count(),
                func.count().filter(WorkItem.finished_at > func.now() - _RATE_WINDOW),
                func.min(WorkItem.started_at).filter(recent),
                func.now(),
            )
            .where(WorkItem.org_id == self.tenant.org_id, WorkItem.job_id.in_(job_ids))
            .group_by(*columns)
        )
        found = {job_id: JobCounts() for job_id in job_ids}
        for job_id, state, stage, count, lately, since, now in await self.session.execute(statement):
            if job_id is None:
                continue
            counts = found[job_id]
            counts.by_state[state] += count
            if state is WorkState.RUNNING and stage:
                counts.stages[stage] += count
            if state in (WorkState.SUCCEEDED, WorkState.FAILED):
                counts.lately += lately
            counts.since = min(filter(None, (counts.since, since)), default=None)
            counts.now = now
        return found


class WorkItems(Repository[WorkItem]):
    """Work items of one project."""

    model = WorkItem
    noun = "job item"
    sorts: ClassVar[Sorts] = {"created_at": WorkItem.created_at}
    large = (WorkItem.payload,)

    async def queue(
        self, kind: WorkKind, subject_id: UUID, *, job_id: UUID | None = None, payload: Json | None = None
    ) -> None:
        """Queues an item; its workers are woken after the commit."""
        await self.queue_all(kind, {subject_id: payload or {}}, job_id=job_id)

    async def queue_all(
        self,
        kind: WorkKind,
        payloads: Mapping[UUID, Json],
        *,
        sizes: Mapping[UUID, int] | None = None,
        job_id: UUID | None = None,
    ) -> None:
        """Queues an item for each subject, in few statements. `sizes` in bytes tell large from small."""
        await self.add_all(
            [
                WorkItem(
                    org_id=self.tenant.org_id,
                    id=new_id(),
                    project_id=self.tenant.project,
                    queue=INGEST_QUEUE,
                    kind=kind,
                    job_id=job_id,
                    subject_id=subject_id,
                    payload=payload,
                    size_bytes=sizes[subject_id] if sizes else 0,
                )
                for subject_id, payload in payloads.items()
            ]
        )
        wake_after(self.session, INGEST_QUEUE)

    async def guard(self, claim: Claim, *, stage: str | None = None) -> None:
        """Fails with `LeaseLost` unless `claim` still holds its item; locks and prolongs it.

        Every transaction that writes on behalf of an item begins with this.
        """
        held = {"at_org": claim.org_id, "at_id": claim.id, "at_fence": claim.fence}
        done = await self.session.execute(PROLONG, held | {"for_s": claim.lease_s, "at_stage": stage or None})
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

    async def newest_payload(self, subject_id: UUID, kind: WorkKind) -> Json:
        """What the last item of this kind was told of its subject; empty where there was none."""
        statement = (
            select(WorkItem.payload)
            .where(
                WorkItem.org_id == self.tenant.org_id,
                WorkItem.subject_id == subject_id,
                WorkItem.kind == kind,
            )
            .order_by(WorkItem.id.desc())
            .limit(1)
        )
        return dict((await self.session.execute(statement)).scalar_one_or_none() or {})

    async def cancel_open(self, subject_ids: Sequence[UUID]) -> None:
        """Cancels whatever is queued or running for these; its workers lose their leases."""
        await self._cancel(WorkItem.subject_id.in_(subject_ids))

    async def cancel_job(self, job_id: UUID) -> list[Asked]:
        """Cancels whatever of a job is queued or running; answers what that was."""
        return await self._cancel(WorkItem.job_id == job_id)

    async def _cancel(self, which: ColumnElement[bool]) -> list[Asked]:
        statement = (
            update(WorkItem)
            .where(WorkItem.org_id == self.tenant.org_id, which, WorkItem.state.in_(OPEN))
            .values(
                state=WorkState.CANCELLED,
                finished_at=func.now(),
                fence=WorkItem.fence + 1,
                lease_until=None,
                lease_owner=None,
            )
            .returning(*_ASKED)
            .execution_options(synchronize_session=False)
        )
        return [Asked(*row) for row in await self.session.execute(statement)]

    async def asked(self, job_id: UUID, states: Sequence[WorkState]) -> list[Asked]:
        """What a job's items in one of `states` are about."""
        statement = select(*_ASKED).where(
            WorkItem.org_id == self.tenant.org_id, WorkItem.job_id == job_id, WorkItem.state.in_(states)
        )
        return [Asked(*row) for row in await self.session.execute(statement)]

    async def again(self, item_ids: Sequence[UUID]) -> list[Asked]:
        """Queues those of the items that failed or were cancelled as if they were new; which they were."""
        statement = (
            update(WorkItem)
            .where(
                WorkItem.org_id == self.tenant.org_id,
                WorkItem.id.in_(item_ids),
                WorkItem.state.in_((WorkState.FAILED, WorkState.CANCELLED)),
            )
            .values(
                state=WorkState.QUEUED,
                attempts=0,
                deaths=0,
                alone=False,
                stage=None,
                error=None,
                due_at=func.now(),
                queued_at=func.now(),
                started_at=None,
                finished_at=None,
                fence=WorkItem.fence + 1,
            )
            .returning(*_ASKED)
            .execution_options(synchronize_session=False)
        )
        asked = [Asked(*row) for row in await self.session.execute(statement)]
        wake_after(self.session, INGEST_QUEUE)
        return asked

    async def any_open_in(self, job_id: UUID) -> bool:
        statement = select(WorkItem.id).where(
            WorkItem.org_id == self.tenant.org_id, WorkItem.job_id == job_id, WorkItem.state.in_(OPEN)
        )
        return (await self.session.execute(statement.limit(1))).first() is not None

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
