"""Versions of agents: published, listed, compared, brought back; and agents in the archive."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Request, Response

from app.api import yaml_bodies
from app.api.conditional import RevisionsDep, tagged
from app.api.dependencies import AgentsDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.agent_transfer import DiffRead, DiffSide
from app.api.schemas.agents import AgentRead, Publish, Rollback, VersionRead, VersionSummary
from app.api.schemas.common import PageRead, page_of
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.agents import AgentVersion
from app.db.postgres.repositories.agents import AgentVersions
from app.services.agents.publishing import Released

router = native_router("/agents", tag="agents")
_STAYS: dict[int | str, dict[str, Any]] = {
    200: {"model": VersionRead, "description": "It was live already, and stays so"}
}
_YAML: dict[int | str, dict[str, Any]] = {
    200: {"content": {yaml_bodies.YAML: {"schema": {"type": "object"}}}}
}


@router.post(
    "/{agent}/publish",
    status_code=201,
    operation_id="agents_publish",
    summary="Publish an agent",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
    responses=_STAYS,
)
async def publish(
    agent: str,
    agents: AgentsDep,
    response: Response,
    revisions: RevisionsDep,
    body: Publish | None = None,
) -> VersionRead:
    """The draft becomes an immutable version, live from now on.

    Where the live version is already the same, with the same things bound, it is answered with 200 and stays
    as it is. With `If-Match`, only the draft that was read is published, else 412.
    """
    released = await agents.release(agent, note=body.note if body else "", revisions=revisions)
    return await _answered(released, agents, response)


@router.post(
    "/{agent}/rollback",
    status_code=201,
    operation_id="agents_rollback",
    summary="Bring back a version of an agent",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
    responses=_STAYS,
)
async def rollback(
    agent: str, body: Rollback, agents: AgentsDep, response: Response, revisions: RevisionsDep
) -> VersionRead:
    """The content of that version becomes a new version, live from now on; the draft stays as it is.

    422 where something that it needs is not there any more.
    """
    released = await agents.rollback(agent, body.version, note=body.note, revisions=revisions)
    return await _answered(released, agents, response)


async def _answered(released: Released, agents: AgentsDep, response: Response) -> VersionRead:
    if not released.fresh:
        response.status_code = 200
    return await _with_author(released.version, agents)


async def _with_author(version: AgentVersion, agents: AgentsDep) -> VersionRead:
    return VersionRead.of(version, await agents.authors([version]))


@router.post(
    "/{agent}/archive",
    operation_id="agents_archive",
    summary="Archive an agent",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
)
async def archive(agent: str, agents: AgentsDep, response: Response, revisions: RevisionsDep) -> AgentRead:
    """From now on it is neither run nor changed (409 `archived`), and not listed unless that is asked for.

    Versions and runs can still be read; runs that have begun go on.
    """
    return tagged(AgentRead.model_validate(await agents.archive(agent, revisions=revisions)), response)


@router.post(
    "/{agent}/unarchive",
    operation_id="agents_unarchive",
    summary="Take an agent out of the archive",
    dependencies=[allow(Permission.AGENTS_WRITE), idempotent()],
)
async def unarchive(agent: str, agents: AgentsDep, response: Response, revisions: RevisionsDep) -> AgentRead:
    """It is again what it was."""
    return tagged(AgentRead.model_validate(await agents.unarchive(agent, revisions=revisions)), response)


@router.get(
    "/{agent}/versions",
    operation_id="agents_versions",
    summary="List versions of an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def versions(
    agent: str, page: Annotated[PageRequest, paged(AgentVersions)], agents: AgentsDep
) -> PageRead[VersionSummary]:
    """Without graphs and bindings. Each was live from when it was made until the next one was."""
    found = await agents.versions(agent, page)
    authors = await agents.authors(found.items)
    return page_of(found, lambda version: VersionSummary.of(version, authors))


@router.get(
    "/{agent}/versions/{version}",
    operation_id="agents_version",
    summary="Get a version of an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
    response_model=VersionRead,
    responses=_YAML,
)
async def version(agent: str, version: str, agents: AgentsDep, request: Request) -> Any:
    """By number or id, or `live`. As YAML where `Accept` says so."""
    found = await _with_author(await agents.version(agent, version), agents)
    if yaml_bodies.wants_yaml(request):
        return yaml_bodies.answer(found.model_dump(mode="json"))
    return found


@router.get(
    "/{agent}/diff",
    operation_id="agents_diff",
    summary="Compare two versions of an agent",
    dependencies=[allow(Permission.AGENTS_READ)],
)
async def diff(
    agent: str,
    agents: AgentsDep,
    before: Annotated[str, Query(alias="from", description="Number, id, `live` or `draft`")] = "live",
    after: Annotated[str, Query(alias="to", description="Number, id, `live` or `draft`")] = "draft",
) -> DiffRead:
    """What makes the one of the other: nodes, edges and fields that were added, removed or changed."""
    found = await agents.difference(agent, before=before, after=after)
    old, new = (
        DiffSide(version=side.version, id=side.id) if side else DiffSide()
        for side in (found.before, found.after)
    )
    return DiffRead(
        before=old,
        after=new,
        identical=found.diff.empty,
        summary=found.diff.lines(),
        changes=found.diff.changes,
        layout=found.diff.layout,
    )
