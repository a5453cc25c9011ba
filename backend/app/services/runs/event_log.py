"""The group-commit writer: what all runs of a process told and did is stored together.

Text deltas are joined before they are committed, `seq` is given at commit and is gapless per run, and a
run that lost its lease is left out of the batch without failing it. Readers only ever see stored rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import structlog
from sqlalchemy.exc import DBAPIError

from app.core.ids import new_id
from app.core.outages import Outage
from app.core.tasks import end
from app.db.outage import sqlstate
from app.db.session import Database
from app.services.runs.commit import store
from app.services.runs.leases import Lease
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.run_log import FencedOff, Portion, RunLog
from app.services.runs.watch import Watch

logger = structlog.get_logger(__name__)

_PERIOD_S = 0.02
_RETRY_S = 0.25
_LONGEST_RETRY_S = 1.0  # readers wait for what is stored
_REFUSED = ("22", "23", "54")
"""SQLSTATE classes: values that are none, broken constraints, too much of something."""


@dataclass(slots=True)
class EventLog:
    """The writer of one process. What somebody waits for is written at once, the rest every 20 ms."""

    database: Database
    watch: Watch
    patience_s: float = 30
    name: str = field(default_factory=lambda: new_id().hex[-8:])
    logs: dict[str, RunLog] = field(default_factory=dict)
    dirty: dict[UUID, RunLog] = field(default_factory=dict)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    timer: asyncio.TimerHandle | None = None
    wrote_at: float = 0

    def open(self, lease: Lease, *, seq: int = 0) -> RunLog:
        """The log of a run whose last event stored is `seq`; the saver finds it in `logs` until `close`."""
        run = RunLog(self, lease, seq=seq, patience_s=self.patience_s, fresh=lease.fence == 1)
        self.logs[str(lease.id)] = run
        self.watch.stored[lease.id] = seq
        return run

    def close(self, run_id: UUID) -> None:
        self.logs.pop(str(run_id), None)
        self.watch.stored.pop(run_id, None)

    def hear(self, run_id: str) -> None:
        """Somebody may have answered what a run asks: that one, or any where the id is empty."""
        for run in [self.logs.get(str(UUID(run_id)))] if run_id else list(self.logs.values()):
            if run is not None:
                run.hear()

    def mark(self, run: RunLog, *, urgent: bool = False) -> None:
        """`run` has something to store; `urgent`: somebody waits for it."""
        self.dirty[run.lease.id] = run
        if urgent:
            self.wanted.set()
        elif self.timer is None and not self.wanted.is_set():
            self._arm(run)

    def _arm(self, run: RunLog) -> None:
        """Where somebody reads along, the first news after a pause goes out at once."""
        loop = asyncio.get_running_loop()
        since_s = loop.time() - self.wrote_at
        if since_s >= _PERIOD_S and run.lease.id in self.watch.waiting:
            self.wanted.set()
        else:
            self.timer = loop.call_later(_PERIOD_S, self.wanted.set)

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[None]:
        """Writes for the length of the block, and a last time at its end.

        What cannot be stored then is told in the log: the runs go on from what was, with another process.
        """
        task = asyncio.create_task(self._write_forever(), name="event-log")
        try:
            yield
        finally:
            await end(task)
            try:
                await self.flush()
            except Exception as error:
                logger.warning("events_not_stored", runs=len(self.dirty), error=repr(error))

    async def _write_forever(self) -> None:
        outage = Outage(logger, "event_log_write_failed", _RETRY_S, _LONGEST_RETRY_S)
        while True:
            await self.wanted.wait()
            try:
                await self.flush()
                outage.over()
            except Exception as error:
                await asyncio.sleep(outage.failed(error))

    async def flush(self) -> None:
        """Stores everything that is pending; on an outage it stays pending, and this raises."""
        async with self.writing:
            self._disarm()
            batch = [run.taken() for run in self.dirty.values() if run.pending and not run.fenced_off]
            self.dirty.clear()
            if not batch:
                return
            try:
                await self._write(batch)
            except BaseException:
                self.wanted.set()
                raise
            finally:
                self.wrote_at = asyncio.get_running_loop().time()

    def _disarm(self) -> None:
        self.wanted.clear()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    async def _write(self, batch: list[Portion]) -> None:
        """All at once; where the database refuses, each alone, so that one run costs no other anything."""
        try:
            await self._write_together(batch)
        except Exception as error:
            if not _is_refusal(error):
                raise
            if len(batch) == 1:
                logger.error("run_log_refused", run_id=str(batch[0].run.lease.id), error=repr(error))
                batch[0].run.refused(error)
                return
            for portion in batch:
                await self._write([portion.run.taken()])

    async def _write_together(self, batch: list[Portion]) -> None:
        try:
            told = [(portion, portion.rows()) for portion in batch]
            accepted = await store(self.database, told, writer=self.name)
        except BaseException:
            for portion in batch:
                portion.run.put_back(portion)
                self.dirty.setdefault(portion.run.lease.id, portion.run)
            raise
        for portion, rows in told:
            self._settle(portion, rows, accepted)

    def _settle(
        self, portion: Portion, rows: list[LoggedEvent], accepted: dict[UUID, datetime | None]
    ) -> None:
        run = portion.run
        if run.lease.id not in accepted:
            run.fenced_off = True
            run.settle(portion.upto, FencedOff("another process holds the run"))
            return
        run.seq = portion.last_seq
        run.finished_at = accepted[run.lease.id]
        run.settle(portion.upto)
        self.watch.deliver(run.lease.id, rows)


def _is_refusal(error: Exception) -> bool:
    """Whether the same would be refused for ever."""
    if isinstance(error, DBAPIError):
        return isinstance(error.orig, ValueError) or sqlstate(error).startswith(_REFUSED)
    return isinstance(error, TypeError | ValueError)
