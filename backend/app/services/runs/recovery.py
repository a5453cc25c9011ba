"""What earlier processes did of a run, read from its log and its journal, so that another can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from app.agent.core.interfaces import StepKey, StepRecord, Usage
from app.agent.core.interrupts import Interrupt
from app.agent.graph.ports import HalfTold, Past, usage_read
from app.db.base import Json
from app.db.connection import DriverConnection
from app.db.session import Database, Tenant
from app.services.runs.interrupts import answered_in, interrupts_of, unanswered
from app.services.runs.run_log import RunLog

_STEPS = """
    SELECT node_path, node_type, visit, status, extract(epoch FROM started_at) * 1000, duration_ms, attempts,
        output::text, error::text, usage::text, handle, writes::text, request_hash,
        call, source_run_id::text
    FROM agent_run_steps WHERE org_id = $1 AND run_id = $2
"""
_TOLD = """
    SELECT node_path, type, event::text FROM agent_run_events
    WHERE org_id = $1 AND run_id = $2 AND (type = 'RUN_STARTED' OR type LIKE 'TEXT_MESSAGE_%'
        OR type IN ('TOOL_CALL_START', 'TOOL_CALL_END')
        OR type = 'CUSTOM' AND event ->> 'name' IN ('node.finished', 'message.discarded', 'run.suspended',
            'run.resumed', 'run.continued'))
    ORDER BY seq
"""
_USED = """
    SELECT node_path, call, usage::text FROM agent_run_steps
    WHERE org_id = $1 AND run_id = $2 AND source_run_id IS NULL
"""
_RESUMES = """
    WITH RECURSIVE line AS (
        SELECT parent_run_id AS id, 1 AS nth FROM agent_runs
        WHERE org_id = $1 AND id = $2 AND made_by = 'resume' AND parent_run_id IS NOT NULL
        UNION ALL
        SELECT r.parent_run_id, l.nth + 1 FROM line l JOIN agent_runs r ON r.org_id = $1 AND r.id = l.id
        WHERE r.made_by = 'resume' AND r.parent_run_id IS NOT NULL
    )
    SELECT id FROM line ORDER BY nth
"""
_Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Recovered:
    """`known`: the journal. `interrupts`: what the run has waited for."""

    past: Past
    known: dict[StepKey, StepRecord]
    interrupts: dict[UUID, Interrupt]

    def tell(self, run: RunLog) -> None:
        """`run` goes on from what was used and asked before."""
        run.used |= self.past.usage
        run.asked |= unanswered(self.interrupts)


async def journal_of(connection: DriverConnection, tenant: Tenant, run_id: UUID) -> dict[StepKey, StepRecord]:
    """Every entry of a run's journal."""
    steps = [_step(row) for row in await connection.fetch(_STEPS, tenant.org_id, run_id)]
    return {step.key: step for step in steps}


async def recover(database: Database, tenant: Tenant, run_id: UUID, *, continued: int) -> Recovered:
    """Everything that is stored of a run, which is taken up for the `continued`-th time."""
    async with database.reading(tenant) as connection:
        known = await journal_of(connection, tenant, run_id)
        told = await connection.fetch(_TOLD, tenant.org_id, run_id)
        interrupts = await interrupts_of(connection, tenant, run_id)
        resumes = [row[0] for row in await connection.fetch(_RESUMES, tenant.org_id, run_id)]
        answers = [await answered_in(connection, tenant, earlier) for earlier in resumes]
    past = _past([(row[0], row[1], row[2]) for row in told], list(known.values()), continued)
    for before in answers:
        interrupts |= before
    return Recovered(replace(past, resumes=tuple(map(str, resumes))), known, interrupts)


def _step(row: Any) -> StepRecord:
    path, kind, visit, status, started_ms, duration_ms, attempts, *rest = row
    output, error, usage, handle, writes, request_hash, call, source_run_id = rest
    return StepRecord(
        node_path=path,
        node_type=kind,
        visit=visit,
        status=status,
        started_at_ms=int(started_ms),
        duration_ms=duration_ms,
        attempts=attempts,
        output=_value(output),
        error=_value(error),
        usage=_value(usage),
        handle=handle,
        writes=[(field, value) for field, value in _value(writes) or ()],
        request_hash=request_hash,
        call=call,
        source_run_id=source_run_id,
    )


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _past(told: Iterable[_Row], steps: Sequence[StepRecord], continued: int) -> Past:
    ended: set[str] = set()
    messages = _Messages()
    begun = suspended = False
    for node_path, kind, text in told:
        event = json.loads(text)
        match kind:
            case "RUN_STARTED":
                begun = True
            case "CUSTOM":
                name = event["name"]
                if name == "message.discarded":
                    messages.shown.pop(event["value"]["message_id"], None)
                elif name == "node.finished":
                    ended.add(node_path)
                else:
                    suspended = name == "run.suspended"
            case _:
                messages.tell(event, kind, node_path)
    return Past(
        continued=continued,
        suspended=suspended,
        begun=begun,
        told=frozenset(ended),
        parked=frozenset(step.node_path for step in steps if step.status == "waiting"),
        shown=tuple(messages.shown.values()),
        half_told=messages.half_told(),
        usage=usage_of(one for one in steps if one.source_run_id is None),
    )


@dataclass(slots=True)
class _Messages:
    """Follows messages from their begin, in `texts`, to their end, in `shown`; and the calls they hold."""

    texts: dict[str, tuple[str, list[str]]] = field(default_factory=dict)
    shown: dict[str, str] = field(default_factory=dict)
    calls: dict[str, tuple[str, str]] = field(default_factory=dict)

    def tell(self, event: Json, kind: str, node_path: str) -> None:
        match kind:
            case "TEXT_MESSAGE_START":
                self.texts[event["messageId"]] = (node_path, [])
            case "TEXT_MESSAGE_CONTENT":
                self.texts[event["messageId"]][1].append(event["delta"])
            case "TEXT_MESSAGE_END":
                self.shown[event["messageId"]] = "".join(self.texts.pop(event["messageId"])[1])
            case "TOOL_CALL_START":
                self.calls[event["toolCallId"]] = (node_path, event["parentMessageId"])
            case "TOOL_CALL_END":
                self.calls.pop(event["toolCallId"], None)

    def half_told(self) -> tuple[HalfTold, ...]:
        paths = {message_id: path for message_id, (path, _) in self.texts.items()}
        paths |= {message_id: path for path, message_id in self.calls.values()}
        return tuple(
            HalfTold(path, message_id, message_id in self.texts, self._open_in(message_id))
            for message_id, path in paths.items()
        )

    def _open_in(self, message_id: str) -> tuple[str, ...]:
        return tuple(call_id for call_id, (_, parent) in self.calls.items() if parent == message_id)


def usage_of(steps: Iterable[StepRecord]) -> dict[str, Usage]:
    """What the model calls of steps have used, by model. Where those of a node are there one by one, its own
    is their sum."""
    return _summed([(step.node_path, step.call, step.usage) for step in steps])


async def used_by(connection: DriverConnection, tenant: Tenant, run_id: UUID) -> dict[str, Usage]:
    """What a run itself has used so far, by model, as far as its journal has it.

    Nothing else of that is read: it may be what no process could bear.
    """
    rows = await connection.fetch(_USED, tenant.org_id, run_id)
    return _summed([(row[0], row[1], _value(row[2])) for row in rows])


def _summed(steps: Sequence[tuple[str, int, Mapping[str, Any] | None]]) -> dict[str, Usage]:
    """`steps`: path, number of the call, usage."""
    one_by_one = {path for path, call, _ in steps if call}
    used: dict[str, Usage] = {}
    for path, call, usage in steps:
        if not call and path in one_by_one:
            continue
        for model, spent in usage_read(usage).items():
            used[model] = used.get(model, Usage()) + spent
    return used
