"""Agents as documents, in JSON or YAML: drafted, checked, compared, taken out and taken in."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import Query, Request, Response

from app.agent.graph.changes import GraphDiff
from app.api import yaml_bodies
from app.api.conditional import RevisionsDep, tagged
from app.api.dependencies import AgentsDep, allow
from app.api.idempotency import idempotent, without_key
from app.api.native import native_router
from app.api.schemas.agent_transfer import (
    BoundNameRead,
    ChangesRead,
    DiffGraphs,
    Import,
    ImportRead,
)
from app.api.schemas.agents import (
    AgentCreate,
    AgentRead,
    AgentUpdate,
    ReportRead,
    Validate,
    ValidateGraph,
    VersionRead,
)
from app.core.permissions import Permission
from app.services.agents.publishing import difference
from app.services.agents.transfer import Action, Imported, ImportRequest, OnConflict

router = native_router("/agents", tag="agents", route_class=yaml_bodies.YamlRoute)
_EXPORTED: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The document; as JSON in its canonical form (RFC 8785)",
        "content": {kind: {"schema": {"type": "object"}} for kind in ("application/json", yaml_bodies.YAML)},
    }
}
_IMPORTED: dict[int | str, dict[str, Any]] = {201: {"model": ImportRead, "description": "Created"}}


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


@router.patch(
    "/{agent}",
    operation_id="agents_update",
    summary="Update an agent",
    dependencies=[allow(Permission.AGENTS_WRITE)],
)
async def update(
    agent: str, body: AgentUpdate, agents: AgentsDep, response: Response, revisions: RevisionsDep
) -> AgentRead:
    """412 where the draft is at another revision than `If-Match` says; 409 where the agent is archived."""
    changed = await agents.update(agent, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(AgentRead.model_validate(changed), response)


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
    "/diff",
    operation_id="agents_diff_graphs",
    summary="Compare two graphs",
    dependencies=[allow(Permission.AGENTS_READ), without_key("it only reads")],
)
async def diff_graphs(body: DiffGraphs) -> ChangesRead:
    """What makes the one of the other: nodes, edges and fields that were added, removed or changed."""
    return _changes(difference(body.before, body.after))


@router.get(
    "/{agent}/export",
    operation_id="agents_export",
    summary="Export an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_class=Response,
    responses=_EXPORTED,
)
async def export(
    agent: str,
    agents: AgentsDep,
    request: Request,
    version: Annotated[str, Query(description="Number, id, `live` or `draft`")] = "live",
    format: Annotated[
        Literal["json", "yaml"] | None, Query(description="By default as `Accept` says, else JSON")
    ] = None,
) -> Response:
    """One self-contained document, which names what it needs by slugs and holds no secret."""
    document = await agents.export(agent, version)
    if format == "yaml" or (format is None and yaml_bodies.wants_yaml(request)):
        return yaml_bodies.answer(document.document())
    return Response(document.canonical_json(), media_type="application/json")


@router.post(
    "/import",
    operation_id="agents_import",
    summary="Import an agent",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
    responses=_IMPORTED,
)
async def import_(
    body: Import,
    agents: AgentsDep,
    response: Response,
    dry_run: Annotated[bool, Query(description="Only say what would be done")] = False,
) -> ImportRead:
    """Creates the agent, or updates the draft of the one with its slug, in one transaction."""
    request = ImportRequest(
        document=body.document,
        bindings={kind: bound for kind, bound in body.bindings.model_dump().items() if bound},
        slug=body.slug,
        on_conflict=OnConflict(body.on_conflict),
        publish=body.publish,
        note=body.note,
    )
    done = await (agents.foresee(request) if dry_run else agents.import_(request))
    if done.action is Action.CREATE and not dry_run:
        response.status_code = 201
    return await _imported(done, agents, dry_run=dry_run)


async def _imported(done: Imported, agents: AgentsDep, *, dry_run: bool) -> ImportRead:
    version = done.release.version if done.release else None
    return ImportRead(
        dry_run=dry_run,
        action=done.action.value,
        slug=done.slug,
        agent_id=done.agent.id if done.agent else None,
        revision=done.agent.revision if done.agent else None,
        bindings=[BoundNameRead.model_validate(bound) for bound in done.bindings],
        changes=_changes(done.diff),
        valid=done.report.valid,
        issues=done.report.issues,
        publishes=done.publishes,
        version=VersionRead.of(version, await agents.authors([version])) if version else None,
    )


def _changes(diff: GraphDiff) -> ChangesRead:
    return ChangesRead(identical=diff.empty, summary=diff.lines(), changes=diff.changes, layout=diff.layout)
