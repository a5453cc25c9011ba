"""Projects: the rooms of an organization that its agents and collections live in."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.constants import API_PREFIX
from app.core.errors import BadRequest, Conflict
from app.core.ids import new_id
from app.core.merge_patch import merge_patch
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug, slugify
from app.db.base import Json
from app.db.postgres.models.identity import Project
from app.db.postgres.repositories.identity import Projects
from app.db.postgres.repositories.listing import contains
from app.db.session import Tenant


@dataclass(slots=True)
class ProjectService:
    """Works in the caller's transaction. A tenant that names a project sees only that one."""

    session: AsyncSession
    tenant: Tenant

    async def create(self, name: str, *, slug: str | None = None, settings: Json | None = None) -> Project:
        """`Conflict` where the slug is taken; `BadRequest` for callers who would not see it."""
        if self.tenant.project_id is not None:
            raise BadRequest(
                "This call is bound to one project: making another one takes a credential of the whole "
                "organization, and no header X-Project-Id. A login is one: `orrery users set-password EMAIL` "
                f"sets its password, then POST {API_PREFIX}/auth/login.",
                code="project_bound",
            )
        project = Project(
            org_id=self.tenant.org_id,
            id=new_id(),
            slug=check_slug(slug) if slug else slugify(name),
            name=name,
            settings=settings or {},
        )
        return await Projects(self.session, self.tenant).add(
            project, duplicate=f"There is a project {project.slug!r} already; choose another slug."
        )

    async def get(self, reference: str) -> Project:
        return await Projects(self.session, self.tenant).find(reference)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[Project]:
        """Without settings. `q` is looked for in names and slugs."""
        projects = Projects(self.session, self.tenant)
        statement = projects.visible()
        if q is not None:
            statement = statement.where(contains(q, Project.name, Project.slug))
        return await projects.page(request, statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> Project:
        """Changes `name`, and merges `settings` (None empties them); only if at one of `revisions`."""
        projects = Projects(self.session, self.tenant)
        project = await projects.find(reference, lock=True)
        projects.demand_revision(project, revisions)
        project.name = changes.get("name", project.name)
        if "settings" in changes:
            project.settings = merge_patch(project.settings, changes["settings"]) or {}
        project.revision += 1
        project.updated_at = func.now()
        await self.session.flush()
        await self.session.refresh(project)
        return project

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Deletes an empty project, if at one of `revisions`; `Conflict` says what is in another one."""
        projects = Projects(self.session, self.tenant)
        project = await projects.find(reference)
        await projects.lock_out(project)  # from here on nobody can change it or put anything into it
        projects.demand_revision(project, revisions)
        held = await projects.holdings(project)
        if held:
            what = ", ".join(f"{count} {noun}" for noun, count in held.items())
            raise Conflict(
                f"The project {project.slug!r} is not empty; it has: {what}. Delete them first.",
                code="project_not_empty",
            )
        await self.session.delete(project)
