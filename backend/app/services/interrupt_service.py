"""The inbox of a project: what runs ask people, and the answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from app.agent.graph.issues import Findings
from app.agent.graph.json_schema import errors_of
from app.agent.graph.limits import check_size
from app.core.errors import Conflict, FieldError, Forbidden, Invalid
from app.core.paging import Page, PageRequest
from app.db.base import Json
from app.db.postgres.models.agents import AgentRunInterrupt, InterruptStatus
from app.db.postgres.repositories.agents import Agents, Runs
from app.db.postgres.repositories.interrupts import Interrupts
from app.db.session import Database, Tenant

ME = "me"
_OVER = {
    InterruptStatus.ANSWERED: "was answered",
    InterruptStatus.EXPIRED: "expired",
    InterruptStatus.WITHDRAWN: "was withdrawn: the run does not need an answer any more",
}


@dataclass(frozen=True, slots=True)
class Person:
    """Who answers. `oversees`: they may answer what is assigned to somebody else."""

    id: UUID
    email: str
    oversees: bool

    @property
    def names(self) -> tuple[str, str]:
        return self.email, str(self.id)


@dataclass(frozen=True, slots=True)
class Wanted:
    """All that are given must hold. `assignee` is an address or an id; what nobody is named for is shown to
    everybody."""

    statuses: Sequence[InterruptStatus] = ()
    assignees: Sequence[str] = ()
    agent: str | None = None
    run_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    choice: str | None = None
    data: Json = field(default_factory=dict)


@dataclass(slots=True)
class InterruptService:
    """`wake` tells this process of an answer to the run; others hear of it from the database."""

    database: Database
    tenant: Tenant
    wake: Callable[[str], None]

    async def page(self, request: PageRequest, wanted: Wanted) -> Page[AgentRunInterrupt]:
        """`NotFound` where a filter names what is not there."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(wanted.agent) if wanted.agent else None
            if wanted.run_id is not None:
                await Runs(session, self.tenant).get(wanted.run_id)
            interrupts = Interrupts(session, self.tenant)
            statement = interrupts.matching(
                statuses=wanted.statuses,
                assignees=wanted.assignees,
                agent_id=agent.id if agent else None,
                run_id=wanted.run_id,
            )
            return await interrupts.page(request, statement)

    async def answer(self, run_id: UUID, interrupt_id: UUID, answer: Answer, by: Person) -> AgentRunInterrupt:
        """Answers a question, once.

        Raises:
            Conflict: it was answered before, its time is over, or the run has ended.
            Forbidden: it is somebody else's.
            Invalid: the answer does not fit; the question stays open.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            run = await Runs(session, self.tenant).get(run_id, lock=True)
            interrupts = Interrupts(session, self.tenant)
            asked = await interrupts.of_run(run_id, interrupt_id)
            _check_open(asked, run_ended=run.finished_at is not None, now=await interrupts.now())
            if asked.assignee and not by.oversees and asked.assignee.lower() not in map(str.lower, by.names):
                raise Forbidden(f"This is for {asked.assignee!r} to answer.")
            if errors := list(_faults(asked, answer)):
                raise Invalid(f"The answer does not fit: {errors[0].message}", errors=errors)
            await interrupts.close(asked, choice=answer.choice, data=answer.data, answered_by=by.email)
            await session.refresh(asked)
        self.wake(run_id.hex)
        return asked


def _check_open(asked: AgentRunInterrupt, *, run_ended: bool, now: datetime) -> None:
    """Raises `Conflict`, whose code is what became of the question."""
    if run_ended and asked.status in (InterruptStatus.OPEN, InterruptStatus.WITHDRAWN):
        raise Conflict("The run has ended: nobody needs an answer any more.", code="run_ended")
    if asked.status is not InterruptStatus.OPEN:
        by = f" by {asked.answered_by}" if asked.answered_by else ""
        at = f" at {asked.closed_at:%Y-%m-%dT%H:%M:%SZ}" if asked.closed_at else ""
        raise Conflict(f"This question {_OVER[asked.status]}{by}{at}.", code=f"already_{asked.status}")
    if asked.due_at is not None and asked.due_at <= now:
        raise Conflict(f"This question expired at {asked.due_at:%Y-%m-%dT%H:%M:%SZ}.", code="already_expired")


def _faults(asked: AgentRunInterrupt, answer: Answer) -> Any:
    findings = Findings()
    if not check_size(answer.data, findings):
        for issue in findings.report(answer.data).errors:
            yield FieldError(f"/body/data{issue.pointer}", issue.code, issue.message)
        return
    choices = asked.choices or []
    if choices and answer.choice not in choices:
        given = "none was given" if answer.choice is None else f"{answer.choice!r} is none of them"
        message = f"choose one of {', '.join(map(repr, choices))}: {given}"
        yield FieldError("/body/choice", "invalid_choice", message)
    elif answer.choice is not None and not choices:
        yield FieldError("/body/choice", "invalid_choice", "this question has no choices: leave it out")
    if asked.form is None:
        if answer.data:
            yield FieldError("/body/data", "no_form", "this question asks for no data: leave it out")
        return
    for fault in errors_of(asked.form, answer.data):
        yield FieldError(f"/body/data{fault.pointer}", fault.code, fault.message)
