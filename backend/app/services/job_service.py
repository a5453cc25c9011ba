"""Jobs: what people watch, and the draining of the work table that workers do."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import AppError, StorageFull, Unavailable
from app.core.failpoints import failpoint
from app.core.paging import Page, PageRequest
from app.db.base import Json
from app.db.outage import is_outage
from app.db.postgres.models.jobs import Job, WorkItem, WorkState
from app.db.postgres.repositories.work import Claim, JobCounts, Jobs, LeaseLost, WorkItems
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


@dataclass(frozen=True, slots=True)
class JobState:
    """A job with what is counted from its items."""

    job: Job
    counts: JobCounts
    error: Json | None = None

    @property
    def status(self) -> WorkState:
        """`running` while anything is open; then `failed` if one item failed, `cancelled` if one was."""
        states = self.counts.by_state
        if states.get(WorkState.RUNNING):
            return WorkState.RUNNING
        if states.get(WorkState.QUEUED):
            return WorkState.QUEUED if len(states) == 1 else WorkState.RUNNING
        for state in (WorkState.FAILED, WorkState.CANCELLED):
            if states.get(state):
                return state
        return WorkState.SUCCEEDED


@dataclass(slots=True)
class JobService:
    """Reads jobs of one project."""

    database: Database
    tenant: Tenant

    async def get(self, job_id: UUID) -> JobState:
        async with self.database.unit_of_work(self.tenant) as session:
            job = await Jobs(session, self.tenant).get(job_id)
            return (await self._states(Jobs(session, self.tenant), [job]))[0]

    async def page(self, request: PageRequest) -> Page[JobState]:
        async with self.database.unit_of_work(self.tenant) as session:
            jobs = Jobs(session, self.tenant)
            page = await jobs.page(request)
            states = await self._states(jobs, page.items)
            return Page(states, page.next_cursor)

    async def items(self, job_id: UUID, request: PageRequest) -> Page[WorkItem]:
        async with self.database.unit_of_work(self.tenant) as session:
            await Jobs(session, self.tenant).get(job_id)
            items = WorkItems(session, self.tenant)
            return await items.page(request, items.visible().where(WorkItem.job_id == job_id))

    async def _states(self, jobs: Jobs, rows: list[Job]) -> list[JobState]:
        counts = await jobs.counts([job.id for job in rows])
        states = []
        for job in rows:
            state = JobState(job, counts[job.id])
            if state.status is WorkState.FAILED:
                failed = state.counts.by_state[WorkState.FAILED]
                message = f"{failed} of {state.counts.total} items failed"
                state = JobState(job, state.counts, {"code": "items_failed", "message": message})
            states.append(state)
        return states


@dataclass(slots=True)
class _Hand:
    """What one drain has in work, and what it has room for beside it."""

    concurrency: int
    large_bytes: int
    tasks: dict[asyncio.Task[None], Claim] = field(default_factory=dict)
    alone_since: float = 0

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
    large_bytes: int = 2**18
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
            claim = await claimer.silent(session, alone=False, for_s=self.isolation_s) if hand.tasks else None
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
            error = Unavailable("The database or another service does not answer right now.")
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
            "item_failed", item=str(claim.id), final=final, **reason, exc_info=None if known else error
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
