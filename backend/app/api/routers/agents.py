"""Agents, addressed by id or slug: drafted, checked, published, run."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

from fastapi import Query, Request, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import AgentsDep, RunsDep, allow, get_reader, get_resources, paged
from app.api.idempotency import EarlierDep, idempotent, without_key
from app.api.native import native_router
from app.api.schemas.agents import (
    AgentCreate,
    AgentRead,
    AgentSummary,
    AgentUpdate,
    EventRead,
    Publish,
    ReportRead,
    RunCreate,
    RunRead,
    Validate,
    ValidateGraph,
    VersionRead,
    VersionSummary,
)
from app.api.schemas.common import PageRead, page_of
from app.api.sse import LastEventId, event_stream, stream_of
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import RunMode
from app.db.postgres.repositories.agents import Agents, AgentVersions
from app.services.run_service import RunRequest

router = native_router("/agents", tag="agents")


@router.post(
    "",
    status_code=201,
    operation_id="agents_create",
    summary="Create an agent",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
)
async def create(body: AgentCreate, agents: AgentsDep, response: Response) -> AgentRead:
    """Without a slug, one is made of the name."""
    agent = await agents.create(body.name, slug=body.slug, description=body.description, graph=body.graph)
    return tagged(AgentRead.model_validate(agent), response)


@router.get(
    "", operation_id="agents_list", summary="List agents", dependencies=[allow(Permission.AGENTS_READ)]
)
async def list_(
    page: Annotated[PageRequest, paged(Agents)],
    agents: AgentsDep,
    q: Annotated[str | None, Query(description="Is in the name or the slug, in any case")] = None,
) -> PageRead[AgentSummary]:
    """Without drafts."""
    return page_of(await agents.page(page, q=q), AgentSummary.model_validate)


@router.post(
    "/validate",
    operation_id="agents_validate_graph",
    summary="Validate a graph that no agent has yet",
    dependencies=[allow(Permission.AGENTS_READ), without_key("it only reads")],
)
async def validate_graph(body: ValidateGraph, agents: AgentsDep) -> ReportRead:
    """Everything that is wrong with it in this project, at once."""
    report = await agents.check(body.graph)
    return ReportRead(valid=report.valid, issues=report.issues)


@router.get(
    "/{agent}",
    operation_id="agents_get",
    summary="Get an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_model=AgentRead,
    responses=NOT_MODIFIED,
)
async def get(agent: str, agents: AgentsDep, known: KnownDep) -> Any:
    """By id or slug, with the draft; 304 where the ETag in `If-None-Match` is current."""
    return unless_known(AgentRead.model_validate(await agents.get(agent)), known)


@router.patch(
    "/{agent}",
    operation_id="agents_update",
    summary="Update an agent",
    dependencies=[allow(Permission.AGENTS_WRITE)],
)
async def update(
    agent: str, body: AgentUpdate, agents: AgentsDep, response: Response, revisions: RevisionsDep
) -> AgentRead:
    """412 where the draft is at another revision than `If-Match` says."""
    changed = await agents.update(agent, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(AgentRead.model_validate(changed), response)


@router.delete(
    "/{agent}",
    status_code=204,
    operation_id="agents_delete",
    summary="Delete an agent",
    dependencies=[allow(Permission.AGENTS_WRITE)],
)
async def delete(agent: str, agents: AgentsDep, revisions: RevisionsDep) -> Response:
    """Hidden at once with all versions and runs, which a job erases; 409 while a run executes."""
    await agents.delete(agent, revisions=revisions)
    return Response(status_code=204)


@router.post(
    "/{agent}/validate",
    operation_id="agents_validate",
    summary="Validate a graph",
    dependencies=[allow(Permission.AGENTS_READ), without_key("it only reads")],
)
async def validate(agent: str, agents: AgentsDep, body: Validate | None = None) -> ReportRead:
    """Everything that is wrong, at once."""
    report = await agents.validate(agent, body.graph if body else None)
    return ReportRead(valid=report.valid, issues=report.issues)


@router.post(
    "/{agent}/publish",
    status_code=201,
    operation_id="agents_publish",
    summary="Publish an agent",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
)
async def publish(agent: str, agents: AgentsDep, body: Publish | None = None) -> VersionRead:
    """The draft becomes an immutable version, live from now on."""
    return VersionRead.model_validate(await agents.publish(agent, note=body.note if body else ""))


@router.get(
    "/{agent}/versions",
    operation_id="agents_versions",
    summary="List versions of an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def versions(
    agent: str, page: Annotated[PageRequest, paged(AgentVersions)], agents: AgentsDep
) -> PageRead[VersionSummary]:
    """Without graphs and bindings."""
    return page_of(await agents.versions(agent, page), VersionSummary.model_validate)


@router.get(
    "/{agent}/versions/{version}",
    operation_id="agents_version",
    summary="Get a version of an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def version(agent: str, version: str, agents: AgentsDep) -> VersionRead:
    """By number or id."""
    return VersionRead.model_validate(await agents.version(agent, version))


@router.post(
    "/{agent}/runs",
    operation_id="runs_create",
    summary="Run an agent",
    dependencies=[allow(Permission.AGENTS_RUN)],
    response_model=RunRead,
    responses={
        200: {"content": stream_of(EventRead)},
        202: {"model": RunRead, "description": "Queued, or still running; follow `Location`"},
    },
)
async def run(
    agent: str,
    body: RunCreate,
    request: Request,
    runs: RunsDep,
    response: Response,
    earlier: EarlierDep,
    last_event_id: LastEventId = None,
) -> Any:
    """Starts a run. It goes on whatever becomes of this request.

    With an `Idempotency-Key` that was used already, answers from the run of then: its end, or its stream
    after `Last-Event-ID`.
    """
    accepts_stream = "text/event-stream" in request.headers.get("accept", "")
    asks_for_stream = accepts_stream and "mode" not in body.model_fields_set
    mode = RunMode.STREAM if asks_for_stream else RunMode(body.mode)
    wanted = RunRequest(input=body.input, mode=mode, version=body.version, metadata=body.metadata)
    started = await (runs.get(earlier) if earlier else runs.start(agent, wanted))
    run_id = started.id
    if mode is RunMode.STREAM:
        events = runs.follow(run_id, after=(last_event_id or 0) if earlier else 0)
        stream = event_stream(events, await get_reader(request))
        stream.headers["Location"] = _location(run_id)
        return stream
    ended = started
    if mode is RunMode.WAIT:
        settings = (await get_resources(request)).settings
        timeout_s = body.wait_timeout_s or settings.run_wait_timeout_s
        if "idempotency-key" in request.headers:
            # Repetitions are answered from the database, which orders names its own way.
            ended = await runs.wait(run_id, timeout_s=timeout_s)
        else:
            ended = await runs.outcome(started, timeout_s=timeout_s)
    if ended.finished_at is None or mode is RunMode.BACKGROUND:
        response.status_code = 202
        response.headers["Location"] = _location(run_id)
    return RunRead.model_validate(ended)


def _location(run_id: UUID) -> str:
    return f"/api/v1/runs/{run_id}"
