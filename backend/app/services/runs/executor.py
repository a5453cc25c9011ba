"""The executor: runs as supervised asyncio tasks of this process, detached from whoever asked for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog

from app.agent.core.interrupts import Suspended
from app.agent.factory import AgentFactory
from app.agent.graph.ports import Past, RunResult, Undeliverable
from app.core.errors import AppError, Unavailable
from app.core.failpoints import failpoint
from app.core.outages import Outage
from app.core.tasks import end, whole
from app.db.listening import Listener
from app.db.postgres.channels import RUN_COMMANDS, RUN_EVENTS, RUN_QUEUE
from app.db.postgres.models.agents import SUSPENDED, RunStatus
from app.db.session import Database
from app.services.runs.commands import cancels_of
from app.services.runs.event_log import EventLog
from app.services.runs.execution import (
    Execution,
    Left,
    cancelled,
    failed,
    failed_by,
    handed_over,
    put_off,
    succeeded,
    suspended,
    why,
    with_usage,
)
from app.services.runs.leases import RUNS, Leases, put_back_runs
from app.services.runs.outfit import Outfit
from app.services.runs.partitions import keep_partitions
from app.services.runs.replays import replayed
from app.services.runs.run_claims import ClaimedRun, claim_cancelled, claim_runs
from app.services.runs.run_log import Ending, FencedOff, RunLog
from app.services.runs.taking_up import look_back, taken_up
from app.services.runs.watch import news_or_timeout

logger = structlog.get_logger(__name__)

_LOOK_EVERY_S = 1.0
_TOLD: dict[str, str] = {
    RunStatus.QUEUED: "run_handed_over",
    RunStatus.INTERRUPTED: "run_suspended",
    RunStatus.WAITING: "run_suspended",
}
_DIED = "Given up after {0} tries: processes died there, or lost the database (ORRERY_RUN_RECOVERIES)."


@dataclass(slots=True)
class Executor:
    """Executes runs, prolongs their leases, obeys commands, and goes on with runs of dead processes.

    `claims`: whether it goes on with runs that nobody executes. `claim_concurrency` of its `concurrency` runs
    may be such; the rest is for those that somebody waits for.
    """

    database: Database
    log: EventLog
    outfit: Outfit
    owner: str
    lease_s: float = 30
    timeout_s: float = 600
    concurrency: int = 200
    claims: bool = True
    claim_concurrency: int = 100
    recoveries: int = 5
    log_retention_days: int = 0
    sweep_interval_s: float = 5
    grace_s: float = 20
    warm_up: bool = True
    listen_url: str | None = None
    tasks: dict[UUID, asyncio.Task[Left | None]] = field(default_factory=dict)
    claimed: set[UUID] = field(default_factory=set)
    cancelled: set[UUID] = field(default_factory=set)
    reservations: int = 0
    queue_news: asyncio.Event = field(default_factory=asyncio.Event)
    command_news: asyncio.Event = field(default_factory=asyncio.Event)
    leases: Leases = field(init=False)

    @property
    def factory(self) -> AgentFactory:
        return self.outfit.factory

    def __post_init__(self) -> None:
        self.leases = Leases(self.database, RUNS, self.owner, self.lease_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The executor's own tasks, for the length of the block.

        Runs still open then get `grace_s`; after it they go back into the queue. No lease is left behind.
        """
        try:
            async with self.log.writer(), self.leases.beating(), _tasks(*self._services()):
                try:
                    async with _tasks(self._claim_forever()):
                        yield
                finally:
                    await self._stop()
        finally:
            await self._put_back()

    def _services(self) -> list[Coroutine[Any, Any, None]]:
        services = [self._obey_forever(), keep_partitions(self.database, self.log_retention_days)]
        if self.warm_up:
            services.append(self.factory.warm_up())
        if self.listen_url is not None:
            services.append(self._listener(self.listen_url).listen_forever())
        return services

    def _listener(self, url: str) -> Listener:
        handlers = {
            RUN_EVENTS: self._hear_events,
            RUN_QUEUE: lambda _: self.queue_news.set(),
            RUN_COMMANDS: self.hear_command,
        }
        return Listener(url, handlers, self._hears)

    def hear_command(self, run_id: str) -> None:
        """A command to the run, which may wait, or an answer; to any where the id is empty."""
        self.command_news.set()
        self.queue_news.set()
        self.log.hear(run_id)

    def _hears(self, heard: bool) -> None:
        self.log.watch.heard = heard

    def _hear_events(self, payload: str) -> None:
        writer, _, runs = payload.partition(" ")
        if writer == self.log.name:
            return  # what we store, we have told already
        if runs in ("", "*"):
            self.log.watch.notify_all()
            return
        for run_id in runs.split(","):
            self.log.watch.notify(UUID(run_id))

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Room for one run to be started inside; `Unavailable` (503) where as many run here as may."""
        if len(self.tasks) + self.reservations >= self.concurrency:
            error = Unavailable(f"{self.concurrency} runs are executing here (ORRERY_RUN_CONCURRENCY).")
            error.retry_after_s = 1
            raise error
        self.reservations += 1
        try:
            yield
        finally:
            self.reservations -= 1

    def start(self, execution: Execution) -> asyncio.Task[Left | None]:
        """Starts the run in a task of its own; nobody's disconnect touches it."""
        return self._supervised(execution.run_id, self._execute(execution))

    def _supervised(self, run_id: UUID, work: Coroutine[Any, Any, Left | None]) -> asyncio.Task[Left | None]:
        task = asyncio.create_task(work, name=f"run-{run_id}")
        self.tasks[run_id] = task
        task.add_done_callback(lambda gone: self._gone(run_id, gone))
        return task

    def _gone(self, run_id: UUID, task: asyncio.Task[Left | None]) -> None:
        if self.tasks.get(run_id) is not task:
            return
        del self.tasks[run_id]
        self.log.close(run_id)
        self.cancelled.discard(run_id)
        if run_id in self.claimed:
            self.claimed.discard(run_id)
            self.queue_news.set()  # there is room for the next one

    async def finished(self, run_id: UUID, *, timeout_s: float) -> Left | None:
        """Waits for a run that executes here; None where it does not, or did not end within `timeout_s`."""
        task = self.tasks.get(run_id)
        if task is None:
            return None
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        return task.result() if done and not task.cancelled() else None

    def cancel(self, run_id: UUID) -> bool:
        """Cancels a run of this process; False where it is not here."""
        task = self.tasks.get(run_id)
        if task is None or run_id in self.cancelled:
            return task is not None
        self.cancelled.add(run_id)
        task.cancel()
        return True

    async def _execute(self, execution: Execution) -> Left | None:
        run = self.log.open(execution.lease, seq=execution.seq)
        if execution.recovered is not None:
            execution.recovered.tell(run)
        failpoint("run.started")
        async with self.leases.holding(execution.lease, lambda: self._lost(run)):
            try:
                ending = await self._outcome(execution, run)
            except asyncio.CancelledError:
                ending = cancelled() if execution.run_id in self.cancelled else handed_over()
            return await _uninterrupted(self._leave(run, ending))

    async def _outcome(self, execution: Execution, run: RunLog) -> Ending:
        """How the run ends; whatever breaks on our side is an ending, too."""
        try:
            async with asyncio.timeout(self.timeout_s):
                return succeeded(await self._result(execution, run), run)
        except TimeoutError:
            return failed_by(
                "timeout", f"The run took longer than {self.timeout_s:g} s (ORRERY_RUN_TIMEOUT_S)."
            )
        except Suspended as waiting:
            return suspended(waiting, answers=execution.answers + run.answers)
        except Undeliverable as error:
            return _undelivered(error, run)
        except AppError as error:
            return failed(error, run)
        except Exception as error:
            logger.error("run_crashed", run_id=str(execution.run_id), exc_info=error)
            return failed_by("internal_error", "The run failed on our side; the log has it under its id.")

    async def _result(self, execution: Execution, run: RunLog) -> RunResult:
        if execution.recording is not None:
            return await replayed(execution, execution.recording, run, self.outfit)
        run_id, recovered = str(execution.run_id), execution.recovered
        ports = self.outfit.ports(execution, run)
        past = recovered.past if recovered else Past()
        return await execution.agent.run(
            execution.inputs,
            ports=ports,
            run_id=run_id,
            thread_id=run_id,
            past=past,
            effects_id=str(execution.effects_of or ""),
            used=run.used,
        )

    async def _leave(self, run: RunLog, ending: Ending) -> Left | None:
        """Stores how the run ends; None where it is not ours any more, or the database is away too long.

        A result that PostgreSQL refuses makes the run fail.
        """
        lease, ending = run.lease, with_usage(ending, run)
        bound = logger.bind(run_id=str(lease.id), org_id=str(lease.org_id), status=str(ending.status))
        try:
            failpoint("run.finishing")
            await run.leave(ending)
        except FencedOff:
            bound.warning("run_fenced_off")
        except Exception as error:
            bound.warning("run_end_not_stored", error=repr(error))
            if run.broken is not None and ending.status != RunStatus.FAILED:
                return await self._leave(run, failed_by("unstorable", "The run's result cannot be stored."))
        else:
            failpoint("run.finished")
            bound.info(_TOLD.get(ending.status, "run_ended"), **why(ending))
            if ending.status in SUSPENDED:
                self.queue_news.set()  # it may have been answered meanwhile
            return None if ending.status == RunStatus.QUEUED else Left(ending, run.finished_at)
        return None

    def _lost(self, run: RunLog) -> None:
        run.lose()
        task = self.tasks.get(run.lease.id)
        if task is not None:
            task.cancel()

    async def _obey_forever(self) -> None:
        outage = Outage(logger, "commands_unread")
        while True:
            await news_or_timeout(self.command_news, _LOOK_EVERY_S)
            self.command_news.clear()
            if not self.tasks:
                continue
            try:
                wanted = await cancels_of(self.database, owner=self.owner, executing=list(self.tasks))
                outage.over()
            except Exception as error:
                await asyncio.sleep(outage.failed(error))
                continue
            for run_id in wanted:
                self.cancel(run_id)

    async def _claim_forever(self) -> None:
        outage = Outage(logger, "runs_not_claimed")
        while True:
            self.queue_news.clear()
            try:
                await whole(self.claim())  # cut off, it would leave runs that are leased to nobody's task
                outage.over()
            except Exception as error:
                await asyncio.sleep(outage.failed(error))
            await news_or_timeout(self.queue_news, min(_LOOK_EVERY_S, self.sweep_interval_s))

    async def claim(self) -> int:
        """Takes up runs that nobody executes, as many as there is room for; answers how many.

        Those that are only to be ended need no room, and are taken also by a process that `claims` nothing.
        """
        free = self.concurrency - len(self.tasks) - self.reservations
        limit = max(0, min(free, self.claim_concurrency - len(self.claimed)))
        by_us: dict[str, Any] = {"owner": self.owner, "lease_s": self.lease_s, "executing": list(self.tasks)}
        taken = self._take_all(await claim_cancelled(self.database, **by_us))
        if limit and self.claims:
            taken += self._take_all(await claim_runs(self.database, limit=limit, **by_us))
        return taken

    def _take_all(self, runs: list[ClaimedRun]) -> int:
        for run in runs:
            failpoint("run.claimed")
            self.claimed.add(run.id)
            self._supervised(run.id, self._take_up(run))
        return len(runs)

    async def _take_up(self, claimed: ClaimedRun) -> Left | None:
        """Goes on with a run where it was left, or ends it where that is all there is to do."""
        logger.info("run_taken_up", run_id=str(claimed.id), recoveries=claimed.recoveries)
        run = self.log.open(claimed.lease, seq=claimed.last_seq)
        async with self.leases.holding(claimed.lease, lambda: self._lost(run)):
            if claimed.cancelled:
                return await _uninterrupted(self._leave_unexecuted(claimed, run, cancelled()))
            if claimed.recoveries > self.recoveries:
                died = failed_by("process_died", _DIED.format(claimed.recoveries))
                return await _uninterrupted(self._leave_unexecuted(claimed, run, died))
            try:
                execution = await taken_up(claimed, self.outfit)
            except (Exception, asyncio.CancelledError) as error:
                logger.warning("run_not_taken_up", run_id=str(claimed.id), error=repr(error))
                ending = cancelled() if claimed.id in self.cancelled else _unfit(error)
                return await _uninterrupted(self._leave_unexecuted(claimed, run, ending))
        return await self._execute(execution)

    async def _leave_unexecuted(self, claimed: ClaimedRun, run: RunLog, ending: Ending) -> Left | None:
        """`_leave` where nothing of the run was done here: what it used and asked is stored."""
        try:
            if ending.event is not None:
                await look_back(claimed, run, self.database)
        except Exception as error:
            logger.warning("run_end_put_off", run_id=str(claimed.id), error=repr(error))
            ending = put_off()
        return await self._leave(run, ending)

    async def _stop(self) -> None:
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()), timeout=self.grace_s)
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)

    async def _put_back(self) -> None:
        """What a claim took whose answer was lost, and what could not be handed over."""
        try:
            if runs := await put_back_runs(self.database, self.owner):
                logger.info("runs_put_back", runs=runs)
        except Exception as error:
            logger.warning("runs_not_put_back", error=repr(error))


def _undelivered(error: Undeliverable, run: RunLog) -> Ending:
    """A database that is away ends no run: another process, or this one later, goes on with it."""
    if run.broken is None:
        logger.warning("run_put_off", run_id=str(run.lease.id), error=repr(error.__cause__ or error))
        return put_off()
    return failed_by(error.code, "What the run told or did cannot be stored.")


def _unfit(error: BaseException) -> Ending:
    """A graph that does not compile any more never will; everything else may be better next time."""
    if isinstance(error, AppError) and not isinstance(error, Unavailable):
        return failed_by(error.code, error.detail)
    return handed_over() if isinstance(error, asyncio.CancelledError) else put_off()


async def _uninterrupted(work: Coroutine[Any, Any, Left | None]) -> Left | None:
    """Brings `work` to its end whoever cancels us meanwhile: a run must not be cut off in its last write."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()


@asynccontextmanager
async def _tasks(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Tasks for the length of the block."""
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            await end(task)
