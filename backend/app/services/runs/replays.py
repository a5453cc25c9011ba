"""Replays: a run done again on what was recorded of another one, with every way out closed."""

from __future__ import annotations

import json
from time import time
from uuid import UUID

from app.agent.graph.ports import Past, RunFailed, RunResult, total
from app.agent.graph.recording import RecordedEvent, Recording
from app.agent.graph.replaying import RecordEnds, Replay
from app.core.errors import Conflict
from app.core.ids import stable_id
from app.db.session import Database, Tenant
from app.services.runs.closed_ports import closed_ports
from app.services.runs.execution import Execution
from app.services.runs.outfit import Outfit
from app.services.runs.recovery import journal_of, usage_of
from app.services.runs.retention import is_log_kept
from app.services.runs.run_log import RunLog, Telling
from app.services.runs.stored_json import stored_json
from app.services.runs.versions import PublishedAgents

_EVENTS = """
    SELECT node_path, type, event::text, (extract(epoch FROM ts) * 1000)::bigint
    FROM agent_run_events WHERE org_id = $1 AND run_id = $2 ORDER BY seq
"""


async def recording_of(
    database: Database,
    tenant: Tenant,
    run_id: UUID,
    *,
    events_of: UUID | None = None,
    made_of: UUID | None = None,
) -> Recording:
    """The journal of `run_id` with its events, or with those of the run that it replays.

    `made_of`: the run whose model calls a replay has in its journal. Raises `Conflict` (`not_recorded`) where
    there is nothing.
    """
    async with database.reading(tenant) as connection:
        steps = await journal_of(connection, tenant, run_id)
        rows = await connection.fetch(_EVENTS, tenant.org_id, events_of or run_id)
    kept = rows and await is_log_kept(database, events_of or run_id)  # it may go while it is read
    if not kept:
        raise Conflict("What the run told is not kept any more.", code="not_recorded")
    source = str(made_of) if made_of else None
    usage = usage_of(step for step in steps.values() if step.source_run_id == source)
    events = [RecordedEvent(path, kind, json.loads(text), at_ms) for path, kind, text, at_ms in rows]
    return Recording(steps, events, usage)


async def replayed(execution: Execution, recording: Recording, run: RunLog, outfit: Outfit) -> RunResult:
    """Replays; what an earlier process has told of it is not told again. It uses no tokens.

    Raises `RunFailed` where the recorded run failed, and `ReplayDiverged`.
    """
    run_id = str(execution.run_id)
    first = recording.events[0].body
    ids = {first["runId"]: run_id, first["threadId"]: run_id}

    def tell(place: int, event: RecordedEvent) -> None:
        if place < execution.seq:
            return
        told = event.renamed(lambda old: ids.get(old) or str(stable_id(run_id, "replay", old)))
        run.tell(Telling(told.node_path, time(), told.type, stored_json(told.body) or ""))

    try:
        result = await played(Replay(recording, tell, run.relieve), execution, outfit)
    except RunFailed as failed:
        raise _failed(failed.code, failed.detail) from failed
    except RecordEnds as ended:
        if ended.event is None:
            raise Conflict("The run had not ended when it was replayed.", code="not_recorded") from ended
        raise _failed(ended.event.body["code"], ended.event.body["message"]) from ended
    return RunResult(result.output, total({}), {})


async def played(replay: Replay, execution: Execution, outfit: Outfit) -> RunResult:
    """Raises what `ExecutableAgent.run` and `Replay.guarded` raise."""
    tenant, run_id = execution.tenant, str(execution.run_id)
    ports = closed_ports(
        replay,
        outfit.expressions(tenant),
        outfit.code(tenant),
        PublishedAgents(outfit.database, outfit.factory, tenant),
        outfit.limits,
    )
    past = Past(usage=replay.recording.usage)
    work = execution.agent.run(
        execution.inputs, ports=ports, run_id=run_id, thread_id=run_id, past=past, replay=replay
    )
    return await replay.guarded(work)


def _failed(code: str, message: str) -> RunFailed:
    return RunFailed(message, code=code, node_id=None, usage_by_model={})
