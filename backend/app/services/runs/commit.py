"""The one statement that stores what runs told and did: fenced, for many runs at once.

Repeating it stores nothing twice: whether a commit whose answer was lost took place need not be known.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Protocol, TypeVar
from uuid import UUID

from app.agent.core.interfaces import StepRecord
from app.core.failpoints import failpoint
from app.db.postgres.channels import RUN_EVENTS
from app.db.session import Database
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.run_log import CheckpointRow, InterruptRow, Portion, WriteRow
from app.services.runs.stored_json import storable, stored_json

_NEVER_MS = 253_370_764_800_000  # the year 9999
_MOST_IDS = 200  # a notice holds 8,000 bytes

_RUNS = """
    WITH runs AS (
        SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::bigint[], $5::text[], $6::text[],
            $7::text[], $8::text[], $9::float8[], $10::bool[], $11::bigint[], $12::int[])
        AS r (org_id, run_id, fence, last_seq, status, output, error, usage, pause_s, progress, due_ms,
            answers)
    ), locked AS (
        SELECT r.org_id, r.id FROM agent_runs r
        WHERE (r.org_id, r.id) IN (SELECT org_id, run_id FROM runs)
        ORDER BY r.org_id, r.id FOR NO KEY UPDATE
    ), accepted AS (
        UPDATE agent_runs r SET last_seq = i.last_seq,
            status = CASE WHEN i.status IN {suspended} AND r.answers > i.answers THEN 'queued'
                ELSE COALESCE(i.status, r.status) END,
            output = COALESCE(CAST(i.output AS jsonb), r.output),
            error = COALESCE(CAST(i.error AS jsonb), r.error),
            usage = COALESCE(CAST(i.usage AS jsonb), r.usage),
            finished_at = CASE WHEN i.status IS NULL OR i.status IN {open} THEN r.finished_at
                ELSE COALESCE(r.finished_at, now()) END,
            lease_owner = CASE WHEN i.status IS NULL THEN r.lease_owner END,
            lease_until = CASE WHEN i.status IS NULL THEN r.lease_until
                WHEN i.pause_s IS NOT NULL THEN now() + make_interval(secs => i.pause_s) END,
            due_at = CASE WHEN i.status IN {suspended} AND r.answers <= i.answers
                THEN to_timestamp(i.due_ms / 1000.0) END,
            recoveries = CASE WHEN i.progress THEN 0 ELSE r.recoveries END
        FROM locked l JOIN runs i ON i.org_id = l.org_id AND i.run_id = l.id
        WHERE r.org_id = l.org_id AND r.id = l.id AND r.fence = i.fence
            AND (r.finished_at IS NULL OR i.status IS NOT NULL AND r.last_seq = i.last_seq)
        RETURNING r.org_id, r.id, r.project_id, r.finished_at
    )"""
_RUNS = _RUNS.replace("{suspended}", "('interrupted', 'waiting')").replace(
    "{open}", "('queued', 'interrupted', 'waiting')"
)
_EVENTS = """, events AS (
        INSERT INTO agent_run_events (org_id, run_id, seq, ts, node_path, type, event)
        SELECT a.org_id, a.id, i.seq, i.ts, i.node_path, i.type, CAST(i.event AS json)
        FROM unnest(${}::uuid[], ${}::bigint[], ${}::timestamptz[], ${}::text[], ${}::text[], ${}::text[])
        AS i (run_id, seq, ts, node_path, type, event) JOIN accepted a ON a.id = i.run_id
        ON CONFLICT DO NOTHING
    )"""
_STEPS = """, steps AS (
        INSERT INTO agent_run_steps AS s (org_id, run_id, node_path, visit, call, node_type, status, attempts,
            output, error, usage, handle, writes, request_hash, started_at, duration_ms, source_run_id,
            seq)
        SELECT a.org_id, a.id, i.node_path, i.visit, i.call, i.node_type, i.status, i.attempts,
            CAST(i.output AS json), CAST(i.error AS jsonb), CAST(i.usage AS jsonb), i.handle,
            CAST(i.writes AS json), i.request_hash, to_timestamp(i.started_ms / 1000.0), i.duration_ms,
            i.source_run_id, i.seq
        FROM unnest(${}::uuid[], ${}::text[], ${}::int[], ${}::text[], ${}::text[], ${}::int[], ${}::text[],
            ${}::text[], ${}::text[], ${}::text[], ${}::text[], ${}::text[], ${}::bigint[],
            ${}::double precision[], ${}::int[], ${}::uuid[], ${}::bigint[])
        AS i (run_id, node_path, visit, node_type, status, attempts, output, error, usage, handle, writes,
            request_hash, started_ms, duration_ms, call, source_run_id, seq)
        JOIN accepted a ON a.id = i.run_id
        ON CONFLICT (org_id, run_id, node_path, visit, call) DO UPDATE SET status = excluded.status,
            attempts = excluded.attempts, output = excluded.output, error = excluded.error,
            usage = excluded.usage, handle = excluded.handle, writes = excluded.writes,
            request_hash = excluded.request_hash, started_at = excluded.started_at,
            duration_ms = excluded.duration_ms, seq = excluded.seq,
            source_run_id = excluded.source_run_id
        WHERE s.status IN ('started', 'waiting') OR s.source_run_id IS NOT NULL
            OR s.call > 0 AND s.status = 'failed' AND s.output IS NULL
    )"""
_INTERRUPTS = """, interrupts AS (
        INSERT INTO agent_run_interrupts AS s (org_id, id, run_id, project_id, node_path, kind, status,
            message, choices, form, prefill, assignee, tool, tool_call_id, due_at)
        SELECT a.org_id, i.id, a.id, a.project_id, i.node_path, i.kind, i.status, i.message,
            CAST(i.choices AS jsonb), CAST(i.form AS jsonb), CAST(i.prefill AS jsonb), i.assignee, i.tool,
            i.tool_call_id, to_timestamp(i.due_ms / 1000.0)
        FROM unnest(${}::uuid[], ${}::uuid[], ${}::text[], ${}::text[], ${}::text[], ${}::text[],
            ${}::text[], ${}::text[], ${}::text[], ${}::text[], ${}::text[], ${}::text[], ${}::bigint[])
        AS i (run_id, id, node_path, kind, status, message, choices, form, prefill, assignee, tool,
            tool_call_id, due_ms)
        JOIN accepted a ON a.id = i.run_id
        ON CONFLICT (org_id, id) DO UPDATE SET status = excluded.status, closed_at = now()
        WHERE s.status = 'open' AND excluded.status = 'withdrawn'
    )"""
_CHECKPOINTS = """, checkpoints AS (
        INSERT INTO agent_run_checkpoints (org_id, run_id, ns, id, parent_id, body, channels, metadata)
        SELECT a.org_id, a.id, i.ns, i.id, i.parent_id, i.body, i.channels, CAST(i.metadata AS jsonb)
        FROM unnest(${}::uuid[], ${}::text[], ${}::text[], ${}::text[], ${}::bytea[], ${}::bytea[],
            ${}::text[])
        AS i (run_id, ns, id, parent_id, body, channels, metadata) JOIN accepted a ON a.id = i.run_id
        ON CONFLICT (org_id, run_id, ns, id) DO UPDATE SET parent_id = excluded.parent_id,
            body = excluded.body, channels = excluded.channels, metadata = excluded.metadata
    )"""
_WRITES = """, writes AS (
        INSERT INTO agent_run_checkpoint_writes (org_id, run_id, ns, checkpoint_id, task_id, idx, task_path,
            channel, value)
        SELECT a.org_id, a.id, i.ns, i.checkpoint_id, i.task_id, i.idx, i.task_path, i.channel, i.value
        FROM unnest(${}::uuid[], ${}::text[], ${}::text[], ${}::text[], ${}::int[], ${}::text[], ${}::text[],
            ${}::bytea[])
        AS i (run_id, ns, checkpoint_id, task_id, idx, task_path, channel, value)
        JOIN accepted a ON a.id = i.run_id
        ON CONFLICT (org_id, run_id, ns, checkpoint_id, task_id, idx) DO UPDATE SET
            task_path = excluded.task_path, channel = excluded.channel, value = excluded.value
        WHERE excluded.idx < 0
    )"""
_ANSWER = """
    SELECT a.id, a.finished_at FROM accepted a CROSS JOIN (SELECT pg_notify(${}, ${})) AS told
"""

Stored = Sequence[tuple[Portion, list[LoggedEvent]]]


async def store(database: Database, batch: Stored, *, writer: str) -> dict[UUID, datetime | None]:
    """Stores portions in one transaction; answers the runs that took theirs, and when they ended.

    `writer` is told with the news, so that a process need not listen to itself.
    """
    statement, values = _statement(batch, writer)
    steps = any(portion.pending.steps for portion, _ in batch)
    failpoint("events.storing")
    if steps:
        failpoint("journal.storing")
    accepted = await database.system_statement(statement, *values)
    failpoint("events.stored")
    if steps:
        failpoint("journal.stored")
    return {row[0]: row[1] for row in accepted}


def _statement(batch: Stored, writer: str) -> tuple[str, list[Any]]:
    """Only with the parts that have rows: five tables make a slow plan."""
    parts = [_RUNS]
    values: list[Any] = _columns([_run(portion) for portion, _ in batch], 12)
    for template, found in (
        (_EVENTS, [_event(row) for _, rows in batch for row in rows]),
        (_STEPS, [step for portion, _ in batch for step in _steps(portion)]),
        (_CHECKPOINTS, [_checkpoint(p, row) for p, _ in batch for row in _latest(p.pending.checkpoints)]),
        (_INTERRUPTS, [_asked(p, row) for p, _ in batch for row in _latest(p.pending.interrupts)]),
        (_WRITES, [_write(p, row) for p, _ in batch for row in _latest(p.pending.writes)]),
    ):
        if found:
            parts.append(_numbered(template, len(values)))
            values += _columns(found, template.count("${}"))
    parts.append(_numbered(_ANSWER, len(values)))
    values += [RUN_EVENTS, f"{writer} {_notice(batch)}"]
    return "".join(parts), values


@cache
def _numbered(template: str, before: int) -> str:
    pieces = template.split("${}")
    head, *rest = pieces
    return head + "".join(f"${number}{piece}" for number, piece in enumerate(rest, start=before + 1))


def _columns(rows: Sequence[tuple[Any, ...]], width: int) -> list[Any]:
    return [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in range(width)]


class Keyed(Protocol):
    @property
    def key(self) -> Hashable: ...


KeyedT = TypeVar("KeyedT", bound=Keyed)


def _run(portion: Portion) -> tuple[Any, ...]:
    lease, ending = portion.run.lease, portion.pending.ending
    progress = any(entry.step.ended for entry in portion.pending.steps)
    head = (lease.org_id, lease.id, lease.fence, portion.last_seq)
    if ending is None:
        return (*head, None, None, None, None, None, progress, None, 0)
    results = (stored_json(value) for value in (ending.output, ending.error, ending.usage))
    due_ms = _NEVER_MS if ending.due_ms is None else ending.due_ms
    return (*head, str(ending.status), *results, ending.pause_s, progress, due_ms, ending.answers)


def _event(row: LoggedEvent) -> tuple[Any, ...]:
    return row.run_id, row.seq, row.ts, row.node_path, row.type, row.text


def _latest(rows: Sequence[KeyedT]) -> list[KeyedT]:
    """The last row of each key: one statement cannot change a row twice."""
    return list({row.key: row for row in rows}.values())


def _steps(portion: Portion) -> list[tuple[Any, ...]]:
    """`seq` of an entry is that of the last event that was told by then."""
    first = portion.run.seq
    told = {id(event): seq for seq, event in enumerate(portion.pending.events, start=first + 1)}
    return [
        (*_step(portion, entry.step), told.get(id(entry.after), first))
        for entry in _latest(portion.pending.steps)
    ]


def _step(portion: Portion, step: StepRecord) -> tuple[Any, ...]:
    return (
        *(portion.run.lease.id, step.node_path, step.visit, step.node_type, step.status, step.attempts),
        *(stored_json(value) for value in (step.output, step.error, step.usage)),
        *(step.handle, stored_json(list(step.writes) or None), step.request_hash),
        *(step.started_at_ms, step.duration_ms, step.call, step.source_run_id),
    )


def _asked(portion: Portion, row: InterruptRow) -> tuple[Any, ...]:
    one = row.interrupt
    head = (portion.run.lease.id, one.id, one.node_path)
    question = one.question
    if question is None:
        return (*head, "timer", row.status, "", *[None] * 6, one.due_ms)
    parts = (list(question.choices), question.form, question.prefill)
    written = (stored_json(part) if part else None for part in parts)
    said, assignee = storable(question.message), storable(question.assignee)
    about = (question.tool, question.tool_call_id)
    return (*head, question.kind, row.status, said, *written, assignee, *about, one.due_ms)


def _checkpoint(portion: Portion, row: CheckpointRow) -> tuple[Any, ...]:
    run_id = portion.run.lease.id
    return run_id, row.ns, row.id, row.parent_id, row.body, row.channels, row.metadata


def _write(portion: Portion, row: WriteRow) -> tuple[Any, ...]:
    return (
        *(portion.run.lease.id, row.ns, row.checkpoint_id, row.task_id, row.idx),
        *(row.task_path, row.channel, row.value),
    )


def _notice(batch: Stored) -> str:
    ids = [portion.run.lease.id.hex for portion, _ in batch]
    return ",".join(ids) if len(ids) <= _MOST_IDS else "*"
