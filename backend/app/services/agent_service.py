"""Agents: edited as drafts, checked, published as immutable versions, run."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import Catalog
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.schema import AgentGraph
from app.core.constants import MAX_DIGITS
from app.core.errors import AppError, Conflict, NotFound
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.report import Report
from app.core.slugs import as_uuid, check_slug, slugify
from app.db.base import Json
from app.db.postgres.models.agents import Agent, AgentVersion
from app.db.postgres.models.jobs import JobKind, WorkKind
from app.db.postgres.repositories.agents import Agents, AgentVersions, Runs
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.rag import Collections
from app.db.postgres.repositories.secrets import Secrets
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Database, Tenant
from app.services.model_resolver import ModelResolver


@dataclass(slots=True)
class AgentService:
    """Agents and runs of one project. Opens short transactions of its own: a run outlives its request.

    `sees_secrets`: whether the caller may know which names secrets have.
    """

    database: Database
    tenant: Tenant
    principal: UUID
    compiler: AgentCompiler
    models: ModelResolver
    sees_secrets: bool = False

    async def create(
        self, name: str, *, slug: str | None = None, description: str = "", graph: Json | None = None
    ) -> Agent:
        """A draft; it may be incomplete. `Conflict` where the slug is taken."""
        agent = Agent(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=check_slug(slug) if slug else slugify(name),
            name=name,
            description=description,
            draft=graph or {},
        )
        async with self.database.unit_of_work(self.tenant) as session:
            return await Agents(session, self.tenant).add(
                agent, duplicate=f"There is an agent {agent.slug!r} already; choose another slug."
            )

    async def get(self, reference: str) -> Agent:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Agents(session, self.tenant).find(reference)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[Agent]:
        """Without drafts. `q` is looked for in names and slugs."""
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            statement = agents.visible()
            if q is not None:
                statement = statement.where(contains(q, Agent.name, Agent.slug))
            return await agents.page(request, statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> Agent:
        """Changes `name`, `description` or `graph`, None emptying it; only if at one of `revisions`."""
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.find(reference, lock=True)
            agents.demand_revision(agent, revisions)
            agent.name = changes.get("name", agent.name)
            agent.description = changes.get("description", agent.description) or ""
            agent.draft = changes.get("graph", agent.draft) or {}
            agent.revision += 1
            agent.updated_at = func.now()
            await session.flush()
            await session.refresh(agent)
            return agent

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Hides an agent with its versions and runs; a job erases them. Only if at one of `revisions`.

        Refused while one of the runs executes.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.find(reference, lock=True)
            agents.demand_revision(agent, revisions)
            if await Runs(session, self.tenant).open_of(agent.id):
                raise Conflict("Runs of this agent are executing: cancel them first.", code="runs_open")
            await agents.hide(agent)
            job = await Jobs(session, self.tenant).open(JobKind.ERASE_AGENT, agent.id)
            await WorkItems(session, self.tenant).queue(WorkKind.ERASE_AGENT, agent.id, job_id=job.id)

    async def validate(self, reference: str, graph: Any = None) -> Report:
        """Everything that is wrong with `graph`, or with the draft where it is None."""
        agent = await self.get(reference)
        return await self.check(agent.draft if graph is None else graph)

    async def check(self, graph: Any) -> Report:
        """Everything that is wrong with `graph` in this project."""
        return self.compiler.check(graph, await self._catalog())

    async def publish(self, reference: str, *, note: str = "") -> AgentVersion:
        """The draft as the next immutable version, which is live from now; `InvalidGraph` with the report."""
        catalog = await self._catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference, lock=True)
            graph = self._checked(agent.draft, catalog)
            versions = AgentVersions(session, self.tenant)
            version = AgentVersion(
                org_id=self.tenant.org_id,
                id=new_id(),
                agent_id=agent.id,
                version=await versions.newest_number(agent.id) + 1,
                graph=agent.draft,
                bindings=await self._bindings(session, graph),
                content_hash=graph.content_hash,
                note=note,
                author_id=self.principal,
            )
            await versions.add(version)
            agent.live_version = version.version
            return version

    async def versions(self, reference: str, request: PageRequest) -> Page[AgentVersion]:
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            versions = AgentVersions(session, self.tenant)
            return await versions.page(request, versions.published(agent.id))

    async def version(self, reference: str, version: str) -> AgentVersion:
        """The version that `version`, a number or an id, names."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            return await self.version_of(session, agent, version)

    def _checked(self, draft: Json, catalog: Catalog) -> AgentGraph:
        report = self.compiler.check(draft, catalog)
        if report.errors:
            raise InvalidGraph(report)
        return AgentGraph.model_validate(draft)

    async def snapshot(self, reference: str) -> AgentVersion:
        """The draft as it is now, to be run: an unpublished version; `InvalidGraph` with the report."""
        catalog = await self._catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            graph = self._checked(agent.draft, catalog)
            bindings = await self._bindings(session, graph)
            # What the names stand for may change under an unchanged draft.
            bound = sha256(f"{graph.content_hash} {json.dumps(bindings, sort_keys=True)}".encode())
            return await AgentVersions(session, self.tenant).snapshot(
                agent.id, graph=agent.draft, bindings=bindings, content_hash=bound.hexdigest()
            )

    async def unrunnable(self, reference: str, version: str | int) -> AppError:
        """Why there is no such version to run."""
        agent = await self.get(reference)
        if version == "live":
            return Conflict(
                f"The agent {agent.slug!r} has no published version: publish it, or run version 'draft'.",
                code="not_published",
            )
        return NotFound(f"The agent {agent.slug!r} has no version {version}.")

    async def version_of(self, session: AsyncSession, agent: Agent, reference: str) -> AgentVersion:
        """The version of `agent` that a number or an id names."""
        version_id = as_uuid(reference)
        versions = AgentVersions(session, self.tenant)
        if version_id is not None:
            found = await versions.of(agent.id, version_id)
        else:
            number = int(reference) if reference.isdecimal() and len(reference) <= MAX_DIGITS else 0
            found = await versions.number(agent.id, number)
        if found is None:
            raise NotFound(f"The agent {agent.slug!r} has no version {reference!r}.")
        return found

    async def _catalog(self) -> Catalog:
        async with self.database.unit_of_work(self.tenant) as session:
            collections = await Collections(session, self.tenant).names()
            secrets = await Secrets(session, self.tenant).names() if self.sees_secrets else None
        return await self.models.catalog(collections=collections, secrets=secrets)

    async def _bindings(self, session: AsyncSession, graph: AgentGraph) -> Json:
        """The graph's bindings, collections by their ids; models keep their names until they are called."""
        collections = Collections(session, self.tenant)
        bound: Json = graph.bindings.model_dump(mode="json")
        bound["collections"] = {
            name: str((await collections.find(target)).id)
            for name, target in graph.bindings.collections.items()
        }
        return bound
