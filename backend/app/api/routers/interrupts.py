"""The inbox: what runs ask people, to be listed and answered."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query

from app.api.dependencies import AuthDep, CallerDep, InterruptsDep, allow, paged
from app.api.idempotency import without_key
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.interrupts import InterruptAnswer, InterruptRead
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import InterruptStatus
from app.db.postgres.repositories.interrupts import Interrupts
from app.services.auth_service import AuthContext, AuthService
from app.services.interrupt_service import ME, Answer, Person, Wanted

router = native_router("", tag="runs")

Statuses = Annotated[
    list[InterruptStatus] | None, Query(description="Repeat it for any of several; `open` by default")
]


@router.get(
    "/interrupts",
    operation_id="interrupts_list",
    summary="List what runs ask people",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def list_(
    page: Annotated[PageRequest, paged(Interrupts)],
    interrupts: InterruptsDep,
    caller: CallerDep,
    auth: AuthDep,
    status: Statuses = None,
    assignee: Annotated[
        str | None,
        Query(description="An e-mail address, a user's id, or `me`; what is for everybody is shown, too"),
    ] = None,
    agent: Annotated[str | None, Query(description="Id or slug")] = None,
) -> PageRead[InterruptRead]:
    """The inbox of the project."""
    names: tuple[str, ...] = (assignee,) if assignee else ()
    if assignee == ME:
        names = (await _person(caller, auth)).names
    wanted = Wanted(statuses=status or (InterruptStatus.OPEN,), assignees=names, agent=agent)
    return page_of(await interrupts.page(page, wanted), InterruptRead.model_validate)


@router.get(
    "/runs/{run_id}/interrupts",
    operation_id="runs_interrupts",
    summary="List what a run asks people",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def of_run(
    run_id: UUID,
    page: Annotated[PageRequest, paged(Interrupts)],
    interrupts: InterruptsDep,
    status: Annotated[
        list[InterruptStatus] | None, Query(description="Repeat it for any of several; all by default")
    ] = None,
) -> PageRead[InterruptRead]:
    """Answered ones, too."""
    found = await interrupts.page(page, Wanted(statuses=status or (), run_id=run_id))
    return page_of(found, InterruptRead.model_validate)


@router.post(
    "/runs/{run_id}/interrupts/{interrupt_id}",
    operation_id="runs_answer",
    summary="Answer a run",
    dependencies=[allow(Permission.AGENTS_RUN), without_key("a question is answered once")],
)
async def answer(
    run_id: UUID,
    interrupt_id: UUID,
    body: InterruptAnswer,
    interrupts: InterruptsDep,
    caller: CallerDep,
    auth: AuthDep,
) -> InterruptRead:
    """The run goes on. 409 if somebody was faster, or it is too late; 422 leaves the question open."""
    person = await _person(caller, auth)
    given = Answer(body.choice, body.data)
    return InterruptRead.model_validate(await interrupts.answer(run_id, interrupt_id, given, person))


async def _person(caller: AuthContext, auth: AuthService) -> Person:
    email = (await auth.person(caller)).user.email
    return Person(caller.principal, email, oversees=Permission.AGENTS_WRITE in caller.permissions)
