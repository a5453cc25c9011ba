"""The step journal: what each node did, written under the run's fence before the next step starts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog
from sqlalchemy import text

from app.agent.core.interfaces import StepRecord
from app.core.failpoints import failpoint
from app.db.outage import is_outage
from app.db.session import Database, Tenant
from app.services.runs.event_log import RunLog
from app.services.runs.stored_json import stored_json

logger = structlog.get_logger(__name__)

_RETRY_S = 0.25
_RECORD = text(
    """
    INSERT INTO agent_run_steps (org_id, run_id, node_path, visit, call, node_type, status, attempts,
        output, error, usage, started_at, duration_ms)
    SELECT r.org_id, r.id, :node_path, :visit, 0, :node_type, :status, :attempts,
        CAST(:output AS jsonb), CAST(:error AS jsonb), CAST(:usage AS jsonb),
        to_timestamp(CAST(:started_at AS double precision)), :duration_ms
    FROM agent_runs r
    WHERE r.org_id = :org AND r.id = :run AND r.fence = :fence AND r.finished_at IS NULL
    ON CONFLICT DO NOTHING
    """
)


@dataclass(frozen=True, slots=True)
class RunJournal:
    """One run's journal. Implements `Journal`.

    A database that is away for less than `lease_s` fails no step; repeating a record stores nothing twice.
    """

    database: Database
    run: RunLog
    lease_s: float = 30

    async def finished(self, step: StepRecord) -> None:
        lease = self.run.lease
        values = {
            "org": lease.org_id,
            "run": lease.id,
            "fence": lease.fence,
            "node_path": step.node_path,
            "visit": step.visit,
            "node_type": step.node_type,
            "status": step.status,
            "attempts": step.attempts,
            "output": stored_json(step.output),
            "error": stored_json(step.error),
            "usage": stored_json(step.usage),
            "started_at": step.started_at_ms / 1000,
            "duration_ms": step.duration_ms,
        }
        clock = asyncio.get_running_loop().time
        give_up = clock() + self.lease_s
        while not self.run.fenced_off:
            try:
                return await self._store(values)
            except Exception as error:
                if not is_outage(error) or clock() >= give_up:
                    raise
                logger.warning("step_not_stored", run_id=str(lease.id), error=repr(error))
                await asyncio.sleep(_RETRY_S)

    async def _store(self, values: dict[str, Any]) -> None:
        async with self.database.unit_of_work(Tenant(self.run.lease.org_id)) as session:
            await session.execute(_RECORD, values)
            failpoint("journal.storing")
        failpoint("journal.stored")
