"""Runs: what was asked, what came of it, and the log of how."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from app.api.dependencies import AgentsDep, PageDep, ResourcesDep, StandingDep, allow
from app.api.schemas.agents import RunRead, StepRead, StepsRead
from app.api.schemas.common import PageRead
from app.api.sse import event_stream
from app.core.permissions import Permission

router = APIRouter(prefix="/runs", tags=["runs"])

CANCEL_WITHIN_S = 5.0
MAX_SEQ = 2**63 - 1


@router.get("", operation_id="runs_list", dependencies=[allow(Permission.AGENTS_READ)])
async def list_(
    page: PageDep,
    agents: AgentsDep,
    agent: Annotated[str | None, Query(description="Id or slug")] = None,
) -> PageRead[RunRead]:
    found = await agents.runs(page, agent=agent)
    return PageRead(items=[RunRead.model_validate(row) for row in found.items], next_cursor=found.next_cursor)


@router.get("/{run_id}", operation_id="runs_get", dependencies=[allow(Permission.AGENTS_READ)])
async def get(run_id: UUID, agents: AgentsDep) -> RunRead:
    return RunRead.model_validate(await agents.run(run_id))


@router.get("/{run_id}/steps", operation_id="runs_steps", dependencies=[allow(Permission.AGENTS_READ)])
async def steps(run_id: UUID, agents: AgentsDep) -> StepsRead:
    """What each node that is not pure did."""
    return StepsRead(items=[StepRead.model_validate(row) for row in await agents.steps(run_id)])


@router.get(
    "/{run_id}/events",
    operation_id="runs_events",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def events(
    run_id: UUID,
    agents: AgentsDep,
    resources: ResourcesDep,
    standing: StandingDep,
    after: Annotated[int, Query(ge=0, le=MAX_SEQ, description="The last `seq` that was seen")] = 0,
    last_event_id: Annotated[int | None, Header(ge=0, le=MAX_SEQ)] = None,
) -> StreamingResponse:
    """The run's log from event `after` + 1 until it ends, as it is stored."""
    followed = await agents.events(run_id, after=max(after, last_event_id or 0))
    heartbeat_s = resources.settings.sse_heartbeat_s
    return event_stream(followed, heartbeat_s=heartbeat_s, standing=standing)


@router.post("/{run_id}/cancel", operation_id="runs_cancel", dependencies=[allow(Permission.AGENTS_RUN)])
async def cancel(
    run_id: UUID,
    agents: AgentsDep,
    wait: Annotated[bool, Query(description="Answer only when the run has ended (within 5 s)")] = False,
) -> RunRead:
    """Ends a run; one that has ended stays as it is."""
    run = await agents.cancel(run_id)
    if wait and run.finished_at is None:
        run = await agents.wait(run_id, timeout_s=CANCEL_WITHIN_S)
    return RunRead.model_validate(run)
