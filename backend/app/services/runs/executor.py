"""The executor: runs as supervised asyncio tasks of this process, detached from whoever asked for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any
from uuid import UUID

import structlog
from ag_ui.core import RunErrorEvent
from sqlalchemy import select, text

from app.agent.core.interfaces import Models, Retriever
from app.agent.factory import AgentFactory
from app.agent.graph.ports import Ports, RunFailed, RunResult
from app.core.errors import AppError, Unavailable
from app.core.failpoints import failpoint
from app.db.base import Json
from app.db.postgres.models.agents import RunStatus
from app.db.session import Database, Tenant
from app.services.runs.event_log import Ending, EventLog, RunLog
from app.services.runs.journal import RunJournal
from app.services.runs.leases import RUNS, Lease, Leases
from app.services.runs.partitions import keep_partitions

logger = structlog.get_logger(__name__)

_COMMANDS_EVERY_S = 1.0
_RETRY_S = 0.25
_DIED = "The process that ran this died. Start the run again."
_SWEEP = text(
    """
    WITH dead AS (
        SELECT org_id, id FROM agent_runs
        WHERE finished_at IS NULL AND lease_until < now() AND lease_owner IS DISTINCT FROM :owner
        ORDER BY lease_until LIMIT 100 FOR UPDATE SKIP LOCKED
    ), ended AS (
        UPDATE agent_runs r SET status = 'failed', fence = fence + 1, last_seq = last_seq + 1,
            error = CAST(:error AS jsonb), finished_at = now(), lease_until = NULL, lease_owner = NULL
        FROM dead d WHERE r.org_id = d.org_id AND r.id = d.id
        RETURNING r.org_id, r.id, r.last_seq
    )
    INSERT INTO agent_run_events (org_id, run_id, seq, ts, node_path, type, event)
    SELECT org_id, id, last_seq, now(), '', 'RUN_ERROR', CAST(:event AS jsonb) FROM ended
    RETURNING run_id
    """
)


@dataclass(frozen=True, slots=True)
class Execution:
    """A run that was inserted with a lease for this process, and what it needs to start.

    `graph` has its bindings resolved; `key` is the same for equal graphs.
    """

    tenant: Tenant
    run_id: UUID
    fence: int
    graph: Json
    key: str
    input: Json


@dataclass(slots=True)
class Executor:
    """Executes runs, prolongs their leases, obeys cancel commands, and ends runs of dead processes."""

    database: Database
    log: EventLog
    factory: AgentFactory
    retriever: Callable[[Tenant], Retriever]
    models: Callable[[Tenant], Models]
    owner: str
    lease_s: float = 30
    timeout_s: float = 600
    concurrency: int = 200
    sweep_interval_s: float = 5
    grace_s: float = 20
    warm_up: bool = True
    tasks: dict[UUID, asyncio.Task[None]] = field(default_factory=dict)
    cancelled: set[UUID] = field(default_factory=set)
    reservations: int = 0
    leases: Leases = field(init=False)

    def __post_init__(self) -> None:
        self.leases = Leases(self.database, RUNS, self.owner, self.lease_s)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """The executor's own tasks, for the length of the block; runs still open then get `grace_s`."""
        async with self.log.writer(), self.leases.beating():
            own = [
                asyncio.create_task(self._obey_forever(), name="run-commands"),
                asyncio.create_task(self._sweep_forever(), name="run-sweeper"),
                asyncio.create_task(keep_partitions(self.database), name="run-partitions"),
            ]
            if self.warm_up:
                own.append(asyncio.create_task(self.factory.warm_up(), name="engine-warm-up"))
            try:
                yield
            finally:
                await self._stop(own)

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

    def start(self, execution: Execution) -> asyncio.Task[None]:
        """Starts the run in a task of its own; nobody's disconnect touches it."""
        task = asyncio.create_task(self._execute(execution), name=f"run-{execution.run_id}")
        self.tasks[execution.run_id] = task
        task.add_done_callback(lambda _: self.tasks.pop(execution.run_id, None))
        return task

    async def finished(self, run_id: UUID, *, timeout_s: float) -> bool:
        """Waits for a run that executes here; False where it does not, or not within `timeout_s`."""
        task = self.tasks.get(run_id)
        if task is None:
            return False
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
        return bool(done)

    def cancel(self, run_id: UUID) -> bool:
        """Cancels a run of this process; False where it is not here."""
        task = self.tasks.get(run_id)
        if task is None or run_id in self.cancelled:
            return task is not None
        self.cancelled.add(run_id)
        task.cancel()
        return True

    async def _execute(self, execution: Execution) -> None:
        lease = Lease(execution.tenant.org_id, execution.run_id, execution.fence)
        run = RunLog(self.log, lease)
        failpoint("run.started")
        async with self.leases.holding(lease, lambda: self._lost(execution.run_id)):
            try:
                ending = await self._outcome(execution, run)
            except asyncio.CancelledError:
                ending = self._cancelled_ending(execution.run_id)
            await _uninterrupted(self._finish(run, ending))
        self.cancelled.discard(execution.run_id)

    async def _finish(self, run: RunLog, ending: Ending) -> None:
        """Stores the end; a database that is away for less than a lease does not change it."""
        bound = logger.bind(run_id=str(run.lease.id), status=ending.status)
        clock = asyncio.get_running_loop().time
        give_up = clock() + self.lease_s
        while not run.fenced_off:
            try:
                failpoint("run.finishing")
                if await self.log.finish(run, ending):
                    failpoint("run.finished")
                    bound.info("run_ended")
                    return
                run.fenced_off = True
            except Exception as error:
                bound.warning("run_end_not_stored", error=repr(error))
                if clock() >= give_up:
                    return
                await asyncio.sleep(_RETRY_S)
        bound.warning("run_fenced_off")

    async def _outcome(self, execution: Execution, run: RunLog) -> Ending:
        try:
            agent = self.factory.build(execution.graph, execution.key)
            ports = Ports(
                models=self.models(execution.tenant),
                retriever=self.retriever(execution.tenant),
                sink=run,
                journal=RunJournal(self.database, run, self.lease_s),
            )
            async with asyncio.timeout(self.timeout_s):
                run_id = str(execution.run_id)
                result = await agent.run(execution.input, ports=ports, run_id=run_id, thread_id=run_id)
        except TimeoutError:
            return _failed(
                "timeout", f"The run took longer than {self.timeout_s:g} s (ORRERY_RUN_TIMEOUT_S)."
            )
        except AppError as error:
            return _failed(error.code, error.detail, run.terminal, _usage(error))
        except Exception as error:
            logger.error("run_crashed", run_id=str(execution.run_id), exc_info=error)
            return _failed("internal_error", "The run failed on our side; the log has it under its id.")
        if run.terminal is None:
            raise RuntimeError("an executable agent ends with a terminal event")
        return Ending(RunStatus.SUCCEEDED, run.terminal, output=dict(result.output), usage=_usage(result))

    def _cancelled_ending(self, run_id: UUID) -> Ending:
        if run_id in self.cancelled:
            error = {"code": "cancelled", "message": "The run was cancelled."}
            return Ending(RunStatus.CANCELLED, _run_error(error), error=error)
        return _failed("shutdown", "The process was stopped while the run was executing.")

    def _lost(self, run_id: UUID) -> None:
        task = self.tasks.get(run_id)
        if task is not None:
            task.cancel()

    async def _obey_forever(self) -> None:
        t = RUNS
        statement = select(t.c.id).where(
            t.c.lease_owner == self.owner, t.c.cancel_requested_at.is_not(None), t.c.finished_at.is_(None)
        )
        while True:
            await asyncio.sleep(_COMMANDS_EVERY_S)
            if not self.tasks:
                continue
            try:
                async with self.database.system_work() as session:
                    wanted = list((await session.execute(statement)).scalars())
            except Exception as error:
                logger.warning("commands_unread", error=repr(error))
                continue
            for run_id in wanted:
                self.cancel(run_id)

    async def _sweep_forever(self) -> None:
        while True:
            with suppress(Exception):
                await self.sweep()
            await asyncio.sleep(self.sweep_interval_s)

    async def sweep(self) -> int:
        """Ends runs of others whose lease ran out as `failed`; answers how many."""
        error = {"code": "process_died", "message": _DIED}
        values = {
            "owner": self.owner,
            "error": json.dumps(error),
            "event": json.dumps(_run_error(error)),
        }
        async with self.database.system_work() as session:
            swept = list((await session.execute(_SWEEP, values)).scalars())
            if swept:
                failpoint("run.sweeping")
        for run_id in swept:
            logger.warning("run_swept", run_id=str(run_id))
            self.log.watch.notify(run_id)
        return len(swept)

    async def _stop(self, own: list[asyncio.Task[None]]) -> None:
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()), timeout=self.grace_s)
        for task in [*self.tasks.values(), *own]:
            task.cancel()
        await asyncio.gather(*self.tasks.values(), *own, return_exceptions=True)


async def _uninterrupted(work: Coroutine[Any, Any, None]) -> None:
    """Brings `work` to its end whoever cancels us meanwhile: a run must not be cut off in its last write."""
    task = asyncio.create_task(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    task.result()


def _failed(code: str, message: str, event: Json | None = None, usage: Json | None = None) -> Ending:
    error = {"code": code, "message": message}
    return Ending(RunStatus.FAILED, event or _run_error(error), error=error, usage=usage)


def _usage(ended: RunResult | AppError) -> Json | None:
    if not isinstance(ended, RunResult | RunFailed):
        return None
    by_model = {model: asdict(used) for model, used in ended.usage_by_model.items()}
    return asdict(ended.usage) | {"by_model": by_model}


def _run_error(error: Json) -> Json:
    event: Any = RunErrorEvent(message=error["message"], code=error["code"])
    body: Json = event.model_dump(mode="json", by_alias=True, exclude_none=True)
    return body
