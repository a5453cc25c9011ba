"""Jobs: what people watch, and the draining of the work table that workers do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import AppError, Conflict, NotFound, StorageFull, Unavailable
from app.core.failpoints import failpoint
from app.core.paging import Page, PageRequest
from app.db.base import Json
from app.db.outage import is_outage
from app.db.postgres.models.jobs import Job, JobKind, WorkItem, WorkKind, WorkState
from app.db.postgres.models.rag import DocumentStatus
from app.db.postgres.repositories.rag import Documents
from app.db.postgres.repositories.work import OPEN, Asked, Claim, JobCounts, Jobs, LeaseLost, WorkItems
from app.db.session import Database, Tenant
from app.services.runs.claims import ANY_SIZE, Claimer
from app.services.runs.leases import ITEMS, Lease, Leases

logger = structlog.get_logger(__name__)

Handler = Callable[[Claim], Awaitable[None]]
Failed = Callable[[Claim, Json], Awaitable[None]]
_FIRST_RETRY_S = 2.0
_LONGEST_RETRY_S = 300.0
_LOOK_EVERY_S = 1.0
_DEATHS_PER_ATTEMPT = 3  # in company, where another item may have been at fault
_CANCELLED: Json = {"code": "cancelled", "message": "The job was cancelled."}


@dataclass(frozen=True, slots=True)
class JobState:
    """A job with what is counted from its items."""

    job: Job
    counts: JobCounts

    @property
    def status(self) -> WorkState:
        return self.counts.status

    @property
    def ended(self) -> bool:
        return not self.counts.open

    @property
    def error(self) -> Json | None:
        if self.status is not WorkState.FAILED:
            return None
        message = f"{self.counts.by_state[WorkState.FAILED]} of {self.counts.total} items failed"
        return {"code": "items_failed", "message": message}

    @property
    def mark(self) -> int:
        """Equal for equal states: what a watcher has seen, told in one number."""
        counts = self.counts
        seen = [sorted(counts.by_state.items()), counts.stage, self.job.skipped]
        return int.from_bytes(sha256(repr(seen).encode()).digest()[:6])


@dataclass(frozen=True, slots=True)
class JobFilters:
    """All that are given must hold."""

    statuses: Sequence[WorkState] = ()
    kinds: Sequence[JobKind] = ()


@dataclass(slots=True)
class JobService:
    """Jobs of one project: read, watched, cancelled, tried again."""

    database: Database
    tenant: Tenant

    async def get(self, job_id: UUID) -> JobState:
        async with self.database.unit_of_work(self.tenant) as session:
            job = await Jobs(session, self.tenant).get(job_id)
            return JobState(job, (await Jobs(session, self.tenant).counts([job.id]))[job.id])

    async def page(self, request: PageRequest, filters: JobFilters | None = None) -> Page[JobState]:
        wanted = filters or JobFilters()
        async with self.database.unit_of_work(self.tenant) as session:
            jobs = Jobs(session, self.tenant)
            statement = jobs.visible()
            if wanted.kinds:
                statement = statement.where(Job.kind.in_(wanted.kinds))
            if wanted.statuses:
                statement = statement.where(jobs.status().in_(wanted.statuses))
            page = await jobs.page(request, statement)
            counts = await jobs.counts([job.id for job in page.items])
            return page.map(lambda job: JobState(job, counts[job.id]))

    async def items(
        self, job_id: UUID, request: PageRequest, *, statuses: Sequence[WorkState] = ()
    ) -> Page[WorkItem]:
        async with self.database.unit_of_work(self.tenant) as session:
            await Jobs(session, self.tenant).get(job_id)
            items = WorkItems(session, self.tenant)
            statement = items.visible().where(WorkItem.job_id == job_id)
            if statuses:
                statement = statement.where(WorkItem.state.in_(statuses))
            return await items.page(request, statement)

    async def follow(
        self, job_id: UUID, *, seen: int | None, every_s: float
    ) -> AsyncGenerator[JobState, None]:
        """The job whenever it is no longer as `seen` (a `mark`), looked at `every_s`; the last has ended."""
        with suppress(NotFound):  # its project was deleted meanwhile
            while True:
                state = await self.get(job_id)
                if state.mark != seen:
                    seen = state.mark
                    yield state
                if state.ended:
                    return
                await asyncio.sleep(every_s)

    async def cancel(self, job_id: UUID) -> JobState:
        """Ends what is open of a job; one that has ended stays as it is.

        Workers lose their leases, so whatever they were about to write is void. `Conflict` for erasures:
        what was deleted goes.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            items, documents = WorkItems(session, self.tenant), Documents(session, self.tenant)
            await Jobs(session, self.tenant).get(job_id)
            open_items = await items.asked(job_id, OPEN)
            if any(item.kind != WorkKind.INGEST for item in open_items):
                raise Conflict(
                    "An erasure cannot be cancelled: what was deleted goes.", code="not_cancellable"
                )
            # Documents before items: everybody locks in this order.
            await documents.locked([item.subject_id for item in open_items])
            gone = _versions(await items.cancel_job(job_id))
            await documents.set_statuses(gone, DocumentStatus.CANCELLED, error=_CANCELLED)
            failpoint("job.cancelling")
        return await self.get(job_id)

    async def retry(self, job_id: UUID) -> JobState:
        """Queues what failed or was cancelled again, as if it were new; `Conflict` where nothing is.

        Not what has been overtaken meanwhile: a document that is deleted, or has a newer version.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            items, documents = WorkItems(session, self.tenant), Documents(session, self.tenant)
            await Jobs(session, self.tenant).get(job_id)
            ended = await items.asked(job_id, (WorkState.FAILED, WorkState.CANCELLED))
            ingested = [item for item in ended if item.kind == WorkKind.INGEST]
            newest = await documents.locked([item.subject_id for item in ingested])
            current = [item for item in ingested if newest.get(item.subject_id) == _version(item)]
            again = await items.again([item.item_id for item in current])
            if not again:
                raise Conflict(
                    "Nothing of this job can be tried again: no item failed or was cancelled whose document "
                    "is still there in the same version.",
                    code="nothing_to_retry",
                )
            await documents.set_statuses(_versions(again), DocumentStatus.ACCEPTED)
            failpoint("job.retrying")
        return await self.get(job_id)


def _version(item: Asked) -> UUID:
    return UUID(item.payload["version_id"])


def _versions(items: Sequence[Asked]) -> dict[UUID, UUID]:
    """Versions by their documents."""
    return {item.subject_id: _version(item) for item in items}


@dataclass(slots=True)
class _Hand:
    """What one drain has in work, and what it has room for beside it."""

    concurrency: int
    large_bytes: int
    tasks: dict[asyncio.Task[None], Claim] = field(default_factory=dict)
    alone_since: float = 0
    _looked: float = 0

    def looks_for_silent(self) -> bool:
        """Whether it is time again to look for what fell silent with others."""
        if monotonic() - self._looked < _LOOK_EVERY_S:
            return False
        self._looked = monotonic()
        return True

    @property
    def alone(self) -> tuple[asyncio.Task[None], Claim] | None:
        return next(((task, claim) for task, claim in self.tasks.items() if claim.alone), None)

    def most_bytes(self, more: Sequence[Claim]) -> int | None:
        """How large a further item may be, None where there is no room.

        Large ones leave a place for a small one.
        """
        held = [*self.tasks.values(), *more]
        large = sum(claim.size_bytes > self.large_bytes for claim in held)
        if len(held) >= max(self.concurrency, large + 1):
            return None
        return ANY_SIZE if large < max(1, self.concurrency - 1) else self.large_bytes


@dataclass(slots=True)
class Drain:
    """Works a queue off: claims, runs the handler of each item's kind, retries, buries.

    An item that was held by a worker that died is worked on alone for up to `isolation_s`, so that what kills
    workers takes no other items with it and is the only one that is charged. Items beyond `large_bytes` leave
    a place for a small one.

    `handlers` end their item themselves, in the transaction that writes its result. `failed` shows an
    item's final failure to people (the document's status). Items of the kinds in `endless` are promises
    (what is deleted goes): they are tried until they succeed.
    """

    database: Database
    handlers: Mapping[str, Handler]
    failed: Failed
    owner: str
    lease_s: float = 30
    concurrency: int = 4
    max_attempts: int = 3
    patience_s: float = 6 * 3600
    isolation_s: float = 60
    large_bytes: int = 2**16
    endless: frozenset[str] = frozenset()

    async def run(self, queue: str) -> int:
        """Works until nothing is due; answers how many items it took."""
        leases = Leases(self.database, ITEMS, self.owner, self.lease_s)
        hand = _Hand(self.concurrency, self.large_bytes)
        taken = 0
        async with leases.beating():
            try:
                while True:
                    claims = await self._claim(queue, hand)
                    taken += len(claims)
                    for claim in claims:
                        task = asyncio.create_task(self._one(claim, leases), name=f"item-{claim.id}")
                        hand.tasks[task] = claim
                    if not hand.tasks:
                        return taken
                    # Not until one is done only: what comes meanwhile must not wait behind a long one.
                    done, _ = await asyncio.wait(
                        hand.tasks, timeout=_LOOK_EVERY_S, return_when=asyncio.FIRST_COMPLETED
                    )
                    for task in done:
                        del hand.tasks[task]
            finally:
                for task in hand.tasks:
                    task.cancel()
                await asyncio.gather(*hand.tasks, return_exceptions=True)

    async def _claim(self, queue: str, hand: _Hand) -> list[Claim]:
        claimer = Claimer(queue, self.owner, self.lease_s, self.handlers.keys())
        try:
            if not await self._may_have_company(hand):
                return []
            async with self.database.system_work() as session:
                claims = await self._chosen(session, claimer, hand)
                if claims:
                    failpoint("drain.claiming")
        except Exception as error:
            if not hand.tasks:
                raise
            logger.warning("claim_failed", queue=queue, error=repr(error))  # what is in work goes on
            return []
        if claims:
            failpoint("drain.claimed")
        return claims

    async def _chosen(self, session: AsyncSession, claimer: Claimer, hand: _Hand) -> list[Claim]:
        """One that is to be alone, or as many as there is room for."""
        if not hand.tasks and (silent := await claimer.silent(session, alone=True)):
            hand.alone_since = monotonic()
            return [silent]
        claims: list[Claim] = []
        while (most_bytes := hand.most_bytes(claims)) is not None:
            # In company only what nobody was idle for: a busy worker must not leave it lying for ever.
            claim = None
            if hand.tasks and hand.looks_for_silent():
                claim = await claimer.silent(session, alone=False, for_s=self.isolation_s)
            claim = claim or await claimer.waiting(session, most_bytes=most_bytes)
            if claim is None:
                break
            claims.append(claim)
        return claims

    async def _may_have_company(self, hand: _Hand) -> bool:
        """Whether other items may be taken beside those in hand; ends an isolation that took long enough."""
        if hand.alone is None:
            return True
        task, claim = hand.alone
        if monotonic() - hand.alone_since < self.isolation_s:
            return False
        async with self.database.unit_of_work(claim.tenant) as session:
            await WorkItems(session, claim.tenant).trust(claim)
        hand.tasks[task] = replace(claim, alone=False)
        return True

    async def _one(self, claim: Claim, leases: Leases) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an item is worked off in a task")
        lease = Lease(claim.org_id, claim.id, claim.fence)
        log = logger.bind(item=str(claim.id), kind=claim.kind, attempt=claim.attempts)
        async with leases.holding(lease, task.cancel):
            try:
                self._refuse_what_kills(claim)
                await self.handlers[claim.kind](claim)
            except LeaseLost:
                log.info("item_lost")
                await self._end_or_leave(claim)
            except asyncio.CancelledError:
                log.info("item_abandoned")
                raise
            except Exception as error:
                await self._settle(claim, error)

    def _refuse_what_kills(self, claim: Claim) -> None:
        fatal = claim.attempts > self.max_attempts or claim.deaths > self.max_attempts * _DEATHS_PER_ATTEMPT
        if claim.deaths and fatal and claim.kind not in self.endless:
            times = f"{claim.deaths} time{'s' if claim.deaths > 1 else ''}"
            raise AppError(f"The worker died {times} while working on this.", code="worker_died")

    async def _end_or_leave(self, claim: Claim) -> None:
        """Cancels an item that is still ours but has lost its subject; one of somebody else is theirs."""
        try:
            async with self.database.unit_of_work(claim.tenant) as session:
                await WorkItems(session, claim.tenant).finish(claim, WorkState.CANCELLED)
        except LeaseLost:
            return
        except Exception as error:  # its lease runs out, and then it is taken up again
            logger.warning("item_unsettled", item=str(claim.id), error=repr(error))

    async def _settle(self, claim: Claim, error: Exception) -> None:
        """Retries an unexpected error with growing delays; ends the item on a final one.

        What we depend on being away (`Unavailable`, `StorageFull`) is no failure of the item: it is tried
        for `patience_s`.
        """
        if is_outage(error):
            error = Unavailable("The database does not answer right now.")
        known = error if isinstance(error, AppError) else None
        retriable = known is None or known.retriable
        elsewhere = isinstance(error, Unavailable | StorageFull) and claim.age_s < self.patience_s
        worn_out = claim.attempts >= self.max_attempts and not elsewhere
        final = (not retriable or worn_out) and claim.kind not in self.endless
        reason: Json = {
            "code": known.code if known else "internal_error",
            "message": known.detail if known else f"{type(error).__name__} while working",
            "retriable": retriable,
        }
        logger.warning(
            "item_failed",
            **_ids(claim),
            final=final,
            **reason,
            exc_info=None if known else error,
        )
        try:
            failpoint("drain.settling")
            if final:
                await self.failed(claim, reason)
                return
            async with self.database.unit_of_work(claim.tenant) as session:
                growing = claim.age_s / 4 if elsewhere else _FIRST_RETRY_S * 2 ** min(claim.attempts - 1, 16)
                delay_s = min(max(growing, _FIRST_RETRY_S), _LONGEST_RETRY_S)
                await WorkItems(session, claim.tenant).retry_later(
                    claim, delay_s=delay_s, error=reason, counted=not elsewhere
                )
            failpoint("drain.settled")
        except LeaseLost:
            logger.info("item_lost", item=str(claim.id))
        except Exception as unsettled:  # its lease runs out, and then it is taken up again
            logger.warning("item_unsettled", item=str(claim.id), error=repr(unsettled))


def _ids(claim: Claim) -> dict[str, str]:
    """What a line of the log says an item is about, as far as that is known without a look."""
    found = {"item": claim.id, "job": claim.job_id, "collection": claim.payload.get("collection_id")}
    subject = "document" if claim.kind in (WorkKind.INGEST, WorkKind.ERASE_DOCUMENT) else "subject"
    return {name: str(value) for name, value in (found | {subject: claim.subject_id}).items() if value}
