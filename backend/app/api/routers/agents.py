"""Agents, addressed by id or slug: drafted, checked, published, run."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Header, Response

from app.api.dependencies import AgentsDep, PageDep, ResourcesDep, StandingDep, allow
from app.api.schemas.agents import (
    AgentCreate,
    AgentRead,
    AgentUpdate,
    Publish,
    ReportRead,
    RunCreate,
    RunRead,
    Validate,
    VersionRead,
)
from app.api.schemas.common import PageRead
from app.api.sse import event_stream
from app.core.errors import BadRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import Agent, RunMode
from app.services.agent_service import RunRequest

router = APIRouter(prefix="/agents", tags=["agents"])
_MAX_DIGITS = 9  # of a revision
IfMatch = Annotated[str | None, Header(description="The ETag of the revision that was read")]


@router.post("", status_code=201, operation_id="agents_create", dependencies=[allow(Permission.AGENTS_WRITE)])
async def create(body: AgentCreate, agents: AgentsDep, response: Response) -> AgentRead:
    """Without a slug, one is made of the name."""
    agent = await agents.create(body.name, slug=body.slug, description=body.description, graph=body.graph)
    return _tagged(agent, response)


@router.get("", operation_id="agents_list", dependencies=[allow(Permission.AGENTS_READ)])
async def list_(page: PageDep, agents: AgentsDep) -> PageRead[AgentRead]:
    found = await agents.page(page)
    return PageRead(
        items=[AgentRead.model_validate(row) for row in found.items], next_cursor=found.next_cursor
    )


@router.get("/{agent}", operation_id="agents_get", dependencies=[allow(Permission.AGENTS_READ)])
async def get(agent: str, agents: AgentsDep, response: Response) -> AgentRead:
    return _tagged(await agents.get(agent), response)


@router.patch("/{agent}", operation_id="agents_update", dependencies=[allow(Permission.AGENTS_WRITE)])
async def update(
    agent: str, body: AgentUpdate, agents: AgentsDep, response: Response, if_match: IfMatch = None
) -> AgentRead:
    """412 where the draft is at another revision than `If-Match` says."""
    changes = body.model_dump(exclude_unset=True)
    return _tagged(await agents.update(agent, changes, revision=_revision(if_match)), response)


@router.delete(
    "/{agent}", status_code=204, operation_id="agents_delete", dependencies=[allow(Permission.AGENTS_WRITE)]
)
async def delete(agent: str, agents: AgentsDep) -> Response:
    """With all versions and runs; 409 while a run executes."""
    await agents.delete(agent)
    return Response(status_code=204)


@router.post(
    "/{agent}/validate", operation_id="agents_validate", dependencies=[allow(Permission.AGENTS_READ)]
)
async def validate(agent: str, agents: AgentsDep, body: Validate | None = None) -> ReportRead:
    """Everything that is wrong, at once."""
    report = await agents.validate(agent, body.graph if body else None)
    return ReportRead(valid=report.valid, issues=report.issues)


@router.post(
    "/{agent}/publish",
    status_code=201,
    operation_id="agents_publish",
    dependencies=[allow(Permission.AGENTS_WRITE)],
)
async def publish(agent: str, agents: AgentsDep, body: Publish | None = None) -> VersionRead:
    """The draft becomes an immutable version, live from now on."""
    return VersionRead.model_validate(await agents.publish(agent, note=body.note if body else ""))


@router.get("/{agent}/versions", operation_id="agents_versions", dependencies=[allow(Permission.AGENTS_READ)])
async def versions(agent: str, page: PageDep, agents: AgentsDep) -> PageRead[VersionRead]:
    found = await agents.versions(agent, page)
    return PageRead(
        items=[VersionRead.model_validate(row) for row in found.items], next_cursor=found.next_cursor
    )


@router.post(
    "/{agent}/runs",
    operation_id="runs_create",
    dependencies=[allow(Permission.AGENTS_RUN)],
    response_model=RunRead,
    responses={
        200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}},
        202: {"model": RunRead, "description": "Still running; follow `Location`"},
    },
)
async def run(
    agent: str,
    body: RunCreate,
    agents: AgentsDep,
    resources: ResourcesDep,
    standing: StandingDep,
    response: Response,
) -> Any:
    """Starts a run. It goes on whatever becomes of this request."""
    mode = RunMode(body.mode)
    request = RunRequest(input=body.input, mode=mode, version=body.version, metadata=body.metadata)
    started = await agents.start_run(agent, request)
    if mode is RunMode.STREAM:
        events = await agents.events(started.id, after=0)
        heartbeat_s = resources.settings.sse_heartbeat_s
        stream = event_stream(events, heartbeat_s=heartbeat_s, standing=standing)
        stream.headers["Location"] = _location(started.id)
        return stream
    timeout_s = body.wait_timeout_s or resources.settings.run_wait_timeout_s
    ended = await agents.wait(started.id, timeout_s=timeout_s)
    if ended.finished_at is None:
        response.status_code = 202
        response.headers["Location"] = _location(started.id)
    return RunRead.model_validate(ended)


def _location(run_id: UUID) -> str:
    return f"/api/v1/runs/{run_id}"


def _tagged(agent: Agent, response: Response) -> AgentRead:
    response.headers["ETag"] = f'"{agent.revision}"'
    return AgentRead.model_validate(agent)


def _revision(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    value = if_match.strip().removeprefix("W/").strip('"')
    if not value.isdecimal() or len(value) > _MAX_DIGITS:
        raise BadRequest(f'The header If-Match is {if_match!r}; it takes an ETag such as "3".')
    return int(value)
