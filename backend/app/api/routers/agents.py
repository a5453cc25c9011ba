"""Agents, addressed by id or slug: listed, read, deleted, run."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, unless_known
from app.api.dependencies import AgentsDep, RunsDep, allow, paged
from app.api.idempotency import EarlierDep, without_key
from app.api.native import native_router
from app.api.run_answers import ANSWERS, mode_of, run_answer, stream_answer
from app.api.schemas.agents import AgentRead, AgentSummary, RunCreate, RunRead
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.explanations import AgentExplanation, Explain, ExplainGraph
from app.api.sse import LastEventId
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import RunMode
from app.db.postgres.repositories.agents import Agents
from app.services.agents.drafts import Archived
from app.services.run_service import RunRequest

router = native_router("/agents", tag="agents")


@router.get(
    "", operation_id="agents_list", summary="List agents", dependencies=[allow(Permission.AGENTS_READ)]
)
async def list_(
    page: Annotated[PageRequest, paged(Agents)],
    agents: AgentsDep,
    q: Annotated[str | None, Query(description="Is in the name or the slug, in any case")] = None,
    archived: Annotated[Archived, Query(description="Whether those in the archive")] = Archived.FALSE,
) -> PageRead[AgentSummary]:
    """Without drafts."""
    return page_of(await agents.page(page, q=q, archived=archived), AgentSummary.model_validate)


@router.post(
    "/explain",
    operation_id="agents_explain_graph",
    summary="Explain a graph that no agent has yet",
    dependencies=[allow(Permission.AGENTS_READ), without_key("it only reads")],
)
async def explain_graph(body: ExplainGraph, agents: AgentsDep) -> AgentExplanation:
    """What would run, in which order, with which bindings; nothing is run. 422 where it has no plan."""
    return await agents.explain(body.graph, body.input)


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
    "/{agent}/explain",
    operation_id="agents_explain",
    summary="Explain an agent",
    dependencies=[allow(Permission.AGENTS_READ), without_key("it only reads")],
)
async def explain(agent: str, agents: AgentsDep, body: Explain | None = None) -> AgentExplanation:
    """What would run of a graph, a version, or the draft, in which order, with which bindings."""
    asked = body or Explain()
    return await agents.explain_agent(agent, version=asked.version, graph=asked.graph, given=asked.input)


@router.post(
    "/{agent}/runs",
    operation_id="runs_create",
    summary="Run an agent",
    dependencies=[allow(Permission.AGENTS_RUN)],
    response_model=RunRead,
    responses=ANSWERS,
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
    mode = mode_of(request, body.mode, given="mode" in body.model_fields_set)
    wanted = RunRequest(input=body.input, mode=mode, version=body.version, metadata=body.metadata)
    started = await (runs.get(earlier) if earlier else runs.start(agent, wanted))
    if mode is RunMode.STREAM:
        after = (last_event_id or 0) if earlier else 0
        return await stream_answer(request, runs, started.id, after=after)
    return await run_answer(request, response, runs, started, mode=mode, wait_timeout_s=body.wait_timeout_s)
