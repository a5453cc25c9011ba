"""Projects, addressed by id or slug. A credential that is bound to one project sees only that."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import ProjectsDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.projects import ProjectCreate, ProjectRead, ProjectSummary, ProjectUpdate
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.identity import Projects

router = native_router("/projects", tag="projects")


@router.post(
    "",
    status_code=201,
    operation_id="projects_create",
    summary="Create a project",
    dependencies=[allow(Permission.PROJECTS_WRITE), idempotent()],
)
async def create(body: ProjectCreate, projects: ProjectsDep, response: Response) -> ProjectRead:
    """Without a slug, one is made of the name. 400 for credentials of one project."""
    project = await projects.create(body.name, slug=body.slug, settings=body.settings)
    return tagged(ProjectRead.model_validate(project), response)


@router.get(
    "", operation_id="projects_list", summary="List projects", dependencies=[allow(Permission.PROJECTS_READ)]
)
async def list_(
    page: Annotated[PageRequest, paged(Projects)],
    projects: ProjectsDep,
    q: Annotated[str | None, Query(description="Is in the name or the slug, in any case")] = None,
) -> PageRead[ProjectSummary]:
    """Without settings."""
    return page_of(await projects.page(page, q=q), ProjectSummary.model_validate)


@router.get(
    "/{project}",
    operation_id="projects_get",
    summary="Get a project",
    dependencies=[allow(Permission.PROJECTS_READ)],
    response_model=ProjectRead,
    responses=NOT_MODIFIED,
)
async def get(project: str, projects: ProjectsDep, known: KnownDep) -> Any:
    """By id or slug, with settings; 304 where the ETag in `If-None-Match` is current."""
    return unless_known(ProjectRead.model_validate(await projects.get(project)), known)


@router.patch(
    "/{project}",
    operation_id="projects_update",
    summary="Update a project",
    dependencies=[allow(Permission.PROJECTS_WRITE)],
)
async def update(
    project: str, body: ProjectUpdate, projects: ProjectsDep, response: Response, revisions: RevisionsDep
) -> ProjectRead:
    """412 where the project is at another revision than `If-Match` says."""
    changed = await projects.update(project, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(ProjectRead.model_validate(changed), response)


@router.delete(
    "/{project}",
    status_code=204,
    operation_id="projects_delete",
    summary="Delete a project",
    dependencies=[allow(Permission.PROJECTS_WRITE)],
)
async def delete(project: str, projects: ProjectsDep, revisions: RevisionsDep) -> Response:
    """409 unless it is empty: no agents, collections, models, tools, API keys, nor unfinished jobs."""
    await projects.delete(project, revisions=revisions)
    return Response(status_code=204)
