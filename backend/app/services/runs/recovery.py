"""What earlier processes did of a run, read from its log and its journal, so that another can go on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.agent.core.interfaces import StepRecord, Usage
from app.agent.graph.ports import Past
from app.agent.graph.run_context import plus
from app.db.session import Database, Tenant

_STEPS = """
    SELECT node_path, node_type, visit, status, extract(epoch FROM started_at) * 1000, duration_ms, attempts,
        output::text, error::text, usage::text, handle, writes::text
    FROM agent_run_steps WHERE org_id = $1 AND run_id = $2
"""
_TOLD = """
    SELECT node_path, type, event::text FROM agent_run_events
    WHERE org_id = $1 AND run_id = $2 AND (type = 'RUN_STARTED' OR type LIKE 'TEXT_MESSAGE_%'
        OR type = 'CUSTOM' AND event ->> 'name' IN ('node.finished', 'message.discarded'))
    ORDER BY seq
"""
_Row = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Recovered:
    """`known`: the journal by (node path, visit)."""

    past: Past
    known: dict[tuple[str, int], StepRecord]


async def recover(database: Database, tenant: Tenant, run_id: UUID, *, continued: int) -> Recovered:
    """Everything that is stored of a run, which is taken up for the `continued`-th time."""
    async with database.reading(tenant) as connection:
        steps = [_step(row) for row in await connection.fetch(_STEPS, tenant.org_id, run_id)]
        told = await connection.fetch(_TOLD, tenant.org_id, run_id)
    past = _past([(row[0], row[1], row[2]) for row in told], steps, continued)
    return Recovered(past, {step.key: step for step in steps})


def _step(row: Any) -> StepRecord:
    path, kind, visit, status, started_ms, duration_ms, attempts, *rest = row
    output, error, usage, handle, writes = rest
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
    )


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _past(told: Iterable[_Row], steps: Iterable[StepRecord], continued: int) -> Past:
    ended: set[str] = set()
    texts: dict[str, tuple[str, list[str]]] = {}
    shown: dict[str, str] = {}
    begun = False
    for node_path, kind, text in told:
        event = json.loads(text)
        match kind:
            case "RUN_STARTED":
                begun = True
            case "TEXT_MESSAGE_START":
                texts[event["messageId"]] = (node_path, [])
            case "TEXT_MESSAGE_CONTENT":
                texts[event["messageId"]][1].append(event["delta"])
            case "TEXT_MESSAGE_END":
                shown[event["messageId"]] = "".join(texts.pop(event["messageId"])[1])
            case "CUSTOM" if event["name"] == "message.discarded":
                shown.pop(event["value"]["message_id"], None)
            case "CUSTOM":
                ended.add(node_path)
    return Past(
        continued=continued,
        begun=begun,
        told=frozenset(ended),
        shown=tuple(shown.values()),
        half_told=tuple((path, message_id) for message_id, (path, _) in texts.items()),
        usage=_usage(steps),
    )


def _usage(steps: Iterable[StepRecord]) -> dict[str, Usage]:
    used: dict[str, Usage] = {}
    for step in steps:
        for model, tokens in ((step.usage or {}).get("by_model") or {}).items():
            used[model] = plus(used.get(model, Usage()), Usage(**tokens))
    return used
