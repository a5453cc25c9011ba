"""What one run waits for: questions and times, opened by its holder, closed by whoever answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from app.agent.core.interrupts import Answered, Interrupt, Question
from app.db.connection import DriverConnection
from app.db.session import Database, Tenant
from app.services.runs.run_log import FencedOff, InterruptRow, RunLog

if TYPE_CHECKING:
    from asyncpg import Record

_COLUMNS = """
    i.id, i.node_path, i.kind, i.status, i.message,
    i.choices::text, i.form::text, i.prefill::text, i.assignee, i.tool, i.tool_call_id,
    (extract(epoch FROM i.due_at) * 1000)::bigint, COALESCE(i.due_at <= now(), false),
    i.choice, i.data::text, i.answered_by, (extract(epoch FROM i.closed_at) * 1000)::bigint
"""
_OF_RUN = f"SELECT {_COLUMNS} FROM agent_run_interrupts i WHERE i.org_id = $1 AND i.run_id = $2"  # noqa: S608  (ours)
_OVER = f"""
    SELECT {_COLUMNS} FROM agent_run_interrupts i
    WHERE i.org_id = $1 AND i.run_id = $2 AND i.id = ANY($3::uuid[])
        AND (i.status <> 'open' OR i.due_at <= now())
"""  # noqa: S608  (ours)
_EXPIRE = """
    UPDATE agent_run_interrupts i SET status = 'expired', closed_at = now() FROM agent_runs r
    WHERE i.org_id = $1 AND i.id = $2 AND i.status = 'open' AND r.org_id = i.org_id AND r.id = i.run_id
        AND r.fence = $3
    RETURNING i.id
"""
_CLOSED = f"""
    SELECT {_COLUMNS} FROM agent_run_interrupts i JOIN agent_runs r ON r.org_id = i.org_id AND r.id = i.run_id
    WHERE i.org_id = $1 AND i.id = $2 AND r.fence = $3
"""  # noqa: S608  (ours)


@dataclass(frozen=True, slots=True)
class RunInterrupts:
    """Implements `Interrupts` on the run's part of the group commit. `known`: those stored before."""

    run: RunLog
    database: Database
    known: dict[UUID, Interrupt] = field(default_factory=dict)

    def recall(self, interrupt_id: UUID) -> Interrupt | None:
        return self.known.get(interrupt_id)

    async def open(self, interrupt: Interrupt, event: Any = None) -> None:
        self.known[interrupt.id] = interrupt
        self.run.wait_for(InterruptRow(interrupt, "open"), event)

    def listen(self, hear: Callable[[], None]) -> None:
        self.run.hears = hear

    async def over(self, ids: Collection[UUID]) -> Sequence[Interrupt]:
        """Whoever is cancelled meanwhile does not wait for the statement, nor cut it off."""
        lease = self.run.lease
        look = asyncio.ensure_future(self.database.system_statement(_OVER, lease.org_id, lease.id, list(ids)))
        look.add_done_callback(lambda gone: gone.cancelled() or gone.exception())
        return [_interrupt(row) for row in await asyncio.shield(look)]

    def take(self, interrupt: Interrupt) -> None:
        """An answer is counted, once: a run that has seen all its answers is not woken for them again."""
        known, answer = self.known.get(interrupt.id), interrupt.answered
        if answer and not answer.expired and not (known and known.answered):
            self.run.answers += 1
        self.known[interrupt.id] = interrupt

    async def expire(self, interrupt_id: UUID) -> Answered:
        await self.run.settled()
        lease = self.run.lease
        key = (lease.org_id, interrupt_id, lease.fence)
        await self.database.system_statement(_EXPIRE, *key)
        rows = await self.database.system_statement(_CLOSED, *key)
        answered = _interrupt(rows[0]).answered if rows else None
        if answered is None:
            raise FencedOff("another process holds the run")
        return answered

    async def withdraw(self, under: str) -> None:
        for one in list(self.known.values()):
            if one.answered is None and f"{one.node_path}/".startswith(f"{under}/"):
                del self.known[one.id]
                self.run.wait_for(InterruptRow(one, "withdrawn"))


async def interrupts_of(connection: DriverConnection, tenant: Tenant, run_id: UUID) -> dict[UUID, Interrupt]:
    """What a run has waited for, and waits for; without what was withdrawn."""
    rows = await connection.fetch(_OF_RUN, tenant.org_id, run_id)
    found = [_interrupt(row) for row in rows if row[3] != "withdrawn"]
    return {one.id: one for one in found}


async def answered_in(connection: DriverConnection, tenant: Tenant, run_id: UUID) -> dict[UUID, Interrupt]:
    """What people have answered a run."""
    found = await interrupts_of(connection, tenant, run_id)
    return {key: one for key, one in found.items() if one.answered and not one.answered.expired}


def unanswered(interrupts: dict[UUID, Interrupt]) -> dict[UUID, Interrupt]:
    return {key: one for key, one in interrupts.items() if one.answered is None}


def _interrupt(row: Record) -> Interrupt:
    one_id, path, kind, status, message, *asked = row
    choices, form, prefill, assignee, tool, tool_call_id, due_ms, due, *answer = asked
    question = None
    if kind != "timer":
        question = Question(
            message=message,
            kind=kind,
            choices=tuple(json.loads(choices or "[]")),
            form=json.loads(form) if form else None,
            prefill=json.loads(prefill or "{}"),
            assignee=assignee,
            tool=tool,
            tool_call_id=tool_call_id,
            due_ms=due_ms,
        )
    return Interrupt(one_id, path, question, due_ms, _answered(status, *answer), due)


def _answered(
    status: str, choice: str | None, data: str | None, answered_by: str | None, closed_ms: int | None
) -> Answered | None:
    if status == "open":
        return None
    given = json.loads(data) if data else {}
    return Answered(status != "answered", closed_ms or 0, choice, given, answered_by)
