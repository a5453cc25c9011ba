"""The event log: one writer per process commits the pending events of all its runs together.

Text deltas are joined before they are committed, `seq` is given at commit and is gapless per run, and a
run that lost its lease is left out of the batch without failing it. Readers only ever see stored rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from time import time
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text

from app.core.failpoints import failpoint
from app.core.tasks import end
from app.db.base import Json
from app.db.session import Database
from app.services.runs.leases import Lease
from app.services.runs.stored_json import stored_json
from app.services.runs.watch import Watch

logger = structlog.get_logger(__name__)

Pending = tuple[str, float, Json]  # node path, Unix time in seconds, event

_DELTA = "TEXT_MESSAGE_CONTENT"
_TERMINAL = ("RUN_FINISHED", "RUN_ERROR")
_PERIOD_S = 0.02
_BACKLOG = 10_000
# Repeating it stores nothing twice: whether a commit whose answer was lost took place need not be known.
_APPEND = text(
    """
    WITH incoming AS (
        SELECT * FROM unnest(
            CAST(:org AS uuid[]), CAST(:run AS uuid[]), CAST(:fence AS bigint[]), CAST(:seq AS bigint[]),
            CAST(:ts AS double precision[]), CAST(:path AS text[]), CAST(:type AS text[]),
            CAST(:event AS text[])
        ) AS i (org_id, run_id, fence, seq, ts, node_path, type, event)
    ), locked AS (
        SELECT r.org_id, r.id FROM agent_runs r
        WHERE (r.org_id, r.id) IN (SELECT org_id, run_id FROM incoming)
        ORDER BY r.org_id, r.id FOR NO KEY UPDATE
    ), accepted AS (
        UPDATE agent_runs r SET last_seq = i.last_seq
        FROM locked l
        JOIN (SELECT org_id, run_id, fence, max(seq) AS last_seq FROM incoming GROUP BY 1, 2, 3) i
            ON i.org_id = l.org_id AND i.run_id = l.id
        WHERE r.org_id = l.org_id AND r.id = l.id AND r.fence = i.fence AND r.finished_at IS NULL
        RETURNING r.org_id, r.id
    ), stored AS (
        INSERT INTO agent_run_events (org_id, run_id, seq, ts, node_path, type, event)
        SELECT i.org_id, i.run_id, i.seq, to_timestamp(i.ts), i.node_path, i.type, CAST(i.event AS jsonb)
        FROM incoming i JOIN accepted a ON a.org_id = i.org_id AND a.id = i.run_id
        ON CONFLICT DO NOTHING
    )
    SELECT id FROM accepted
    """
)
_FINISH = text(
    """
    WITH ended AS (
        UPDATE agent_runs SET status = :status, output = CAST(:output AS jsonb),
            error = CAST(:error AS jsonb), usage = CAST(:usage AS jsonb),
            finished_at = now(), last_seq = last_seq + 1, lease_until = NULL, lease_owner = NULL
        WHERE org_id = :org AND id = :run AND fence = :fence AND finished_at IS NULL
        RETURNING org_id, id, last_seq
    )
    INSERT INTO agent_run_events (org_id, run_id, seq, ts, node_path, type, event)
    SELECT org_id, id, last_seq, now(), '', :type, CAST(:event AS jsonb) FROM ended RETURNING seq
    """
)


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ends. `event` is its one terminal event."""

    status: str
    event: Json
    output: Json | None = None
    error: Json | None = None
    usage: Json | None = None


@dataclass(slots=True)
class RunLog:
    """One run's sink: what it emits waits here until the next commit. Implements `EventSink`.

    The first `tried` of `pending` may be stored already, so they must be sent again just as they were.
    """

    log: EventLog
    lease: Lease
    seq: int = 0
    pending: list[Pending] = field(default_factory=list)
    tried: int = 0
    terminal: Json | None = None
    fenced_off: bool = False

    async def emit(self, event: Any, *, node_path: str = "") -> None:
        """Queues an AG-UI event; the terminal one is kept for `EventLog.finish`."""
        body: Json = event.model_dump(mode="json", by_alias=True, exclude_none=True)
        if body["type"] in _TERMINAL:
            self.terminal = body
            return
        if self.fenced_off:
            return
        last = self.pending[-1] if len(self.pending) > self.tried else None
        if last and _joins(last[0], last[2], node_path, body):
            last[2]["delta"] += body["delta"]
        else:
            self.pending.append((node_path, time(), body))
        self.log.mark(self)
        if len(self.pending) > _BACKLOG:
            await self.log.flush()


def _joins(last_path: str, last: Json, path: str, body: Json) -> bool:
    return (
        body["type"] == _DELTA
        and last["type"] == _DELTA
        and last_path == path
        and last["messageId"] == body["messageId"]
    )


@dataclass(slots=True)
class EventLog:
    """The group-commit writer of one process."""

    database: Database
    watch: Watch
    dirty: dict[UUID, RunLog] = field(default_factory=dict)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def mark(self, run: RunLog) -> None:
        self.dirty[run.lease.id] = run
        self.wanted.set()

    @asynccontextmanager
    async def writer(self) -> AsyncIterator[None]:
        """Commits what is pending, at once when idle and every 20 ms under load."""
        task = asyncio.create_task(self._write_forever(), name="event-log")
        try:
            yield
        finally:
            await end(task)
            await self.flush()

    async def _write_forever(self) -> None:
        while True:
            await self.wanted.wait()
            try:
                await self.flush()
            except Exception as error:
                logger.warning("event_log_write_failed", error=repr(error))
                await asyncio.sleep(0.5)
            await asyncio.sleep(_PERIOD_S)

    async def flush(self) -> None:
        """Stores everything that is pending; on an error it stays pending."""
        async with self.writing:
            self.wanted.clear()
            runs = [run for run in self.dirty.values() if run.pending and not run.fenced_off]
            if not runs:
                self.dirty.clear()
                return
            batch = [(run, run.pending) for run in runs]
            for run in runs:  # what comes while we write must not be joined to what is being written
                run.pending, run.tried = [], 0
            try:
                accepted = await self._append(batch)
            except BaseException:
                for run, events in batch:
                    run.pending, run.tried = events + run.pending, len(events)
                self.wanted.set()
                raise
            for run, events in batch:
                run.seq += len(events)
                run.fenced_off = run.lease.id not in accepted
                if run.fenced_off:
                    run.pending = []
                if not run.pending:
                    self.dirty.pop(run.lease.id, None)
                self.watch.notify(run.lease.id)

    async def _append(self, batch: list[tuple[RunLog, list[Pending]]]) -> set[UUID]:
        rows = [
            (run.lease, run.seq + offset, path, ts, body)
            for run, events in batch
            for offset, (path, ts, body) in enumerate(events, start=1)
        ]
        values = {
            "org": [lease.org_id for lease, *_ in rows],
            "run": [lease.id for lease, *_ in rows],
            "fence": [lease.fence for lease, *_ in rows],
            "seq": [seq for _, seq, *_ in rows],
            "path": [path for _, _, path, _, _ in rows],
            "ts": [ts for _, _, _, ts, _ in rows],
            "type": [body["type"] for *_, body in rows],
            "event": [stored_json(body) for *_, body in rows],
        }
        async with self.database.system_work() as session:
            accepted = set((await session.execute(_APPEND, values)).scalars())
            failpoint("events.storing")
        failpoint("events.stored")
        return accepted

    async def finish(self, run: RunLog, ending: Ending) -> bool:
        """Stores what is pending, then the state and the terminal event as one; False when fenced off."""
        await self.flush()
        values = {
            "org": run.lease.org_id,
            "run": run.lease.id,
            "fence": run.lease.fence,
            "status": ending.status,
            "type": ending.event["type"],
            "event": stored_json(ending.event),
            "output": stored_json(ending.output),
            "error": stored_json(ending.error),
            "usage": stored_json(ending.usage),
        }
        async with self.database.system_work() as session:
            stored = (await session.execute(_FINISH, values)).scalar_one_or_none() is not None
        self.watch.notify(run.lease.id)
        return stored
