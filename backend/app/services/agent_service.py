"""Agents: edited as drafts, checked, published as immutable versions, run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import Catalog
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.ports import InvalidInput
from app.agent.graph.schema import AgentGraph
from app.core.errors import Conflict, FieldError, NotFound, PreconditionFailed
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.report import Report
from app.core.slugs import check_slug, slugify
from app.db.base import Json
from app.db.postgres.models.agents import Agent, AgentRun, AgentRunStep, AgentVersion, RunMode, RunStatus
from app.db.postgres.repositories.agents import Agents, AgentVersions, Runs
from app.db.postgres.repositories.rag import Collections
from app.db.session import Database, Tenant
from app.services.model_resolver import ModelResolver
from app.services.runs.executor import Execution, Executor
from app.services.runs.streams import LoggedEvent, RunStreams


@dataclass(frozen=True, slots=True)
class RunRequest:
    """`version` is `live`, `draft` or a number."""

    input: Json
    mode: RunMode
    version: str | int = "live"
    metadata: Json | None = None


@dataclass(slots=True)
class AgentService:
    """Agents and runs of one project. Opens short transactions of its own: a run outlives its request."""

    database: Database
    tenant: Tenant
    principal: UUID
    compiler: AgentCompiler
    models: ModelResolver
    executor: Executor
    streams: RunStreams

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

    async def page(self, request: PageRequest) -> Page[Agent]:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Agents(session, self.tenant).page(request)

    async def update(self, reference: str, changes: Json, *, revision: int | None = None) -> Agent:
        """Changes `name`, `description` or `graph`; with a `revision`, only if nobody else did since."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference, lock=True)
            if revision is not None and revision != agent.revision:
                raise PreconditionFailed(
                    f"The agent is at revision {agent.revision}, not {revision}: read it again."
                )
            agent.name = changes.get("name", agent.name)
            agent.description = changes.get("description", agent.description)
            agent.draft = changes.get("graph", agent.draft)
            agent.revision += 1
            agent.updated_at = func.now()
            await session.flush()
            await session.refresh(agent)
            return agent

    async def delete(self, reference: str) -> None:
        """Deletes an agent with its versions and runs; refused while one of them runs."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference, lock=True)
            if await Runs(session, self.tenant).open_of(agent.id):
                raise Conflict("Runs of this agent are executing: cancel them first.", code="runs_open")
            await Runs(session, self.tenant).erase_of(agent.id)
            await session.delete(agent)

    async def validate(self, reference: str, graph: Any = None) -> Report:
        """Everything that is wrong with `graph`, or with the draft where it is None."""
        agent = await self.get(reference)
        return self.compiler.check(agent.draft if graph is None else graph, await self._catalog())

    async def publish(self, reference: str, *, note: str = "") -> AgentVersion:
        """The draft as the next immutable version, which is live from now; `InvalidGraph` with the report."""
        catalog = await self._catalog()
        model_ids = await self.models.ids()
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
                bindings=await self._bindings(session, graph, model_ids),
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

    async def start_run(self, reference: str, request: RunRequest) -> AgentRun:
        """Creates the run, leased to this process, and starts it detached from the caller."""
        self.executor.check_room()
        catalog = await self._catalog() if request.version == "draft" else None
        model_ids = await self.models.ids() if request.version == "draft" else {}
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            if catalog is not None:
                version = await self._snapshot(session, agent, catalog, model_ids)
            else:
                version = await self._published(session, agent, request.version)
            graph = version.graph | {"bindings": version.bindings}
            self._check_input(graph, version, request.input)
            run = AgentRun(
                org_id=self.tenant.org_id,
                id=new_id(),
                project_id=self.tenant.project,
                agent_id=agent.id,
                version_id=version.id,
                mode=request.mode,
                status=RunStatus.RUNNING,
                input=request.input,
                run_metadata=request.metadata or {},
                lease_owner=self.executor.owner,
                lease_until=func.now() + timedelta(seconds=self.executor.lease_s),
                fence=1,
                started_at=func.now(),
            )
            await Runs(session, self.tenant).add(run)
            failpoint("run.creating")
        failpoint("run.created")
        self.executor.start(
            Execution(
                tenant=self.tenant,
                run_id=run.id,
                fence=1,
                graph=graph,
                key=str(version.id),
                input=request.input,
            )
        )
        return run

    async def run(self, run_id: UUID) -> AgentRun:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Runs(session, self.tenant).get(run_id)

    async def runs(self, request: PageRequest, *, agent: str | None = None) -> Page[AgentRun]:
        async with self.database.unit_of_work(self.tenant) as session:
            runs = Runs(session, self.tenant)
            statement = runs.visible()
            if agent is not None:
                found = await Agents(session, self.tenant).find(agent)
                statement = statement.where(AgentRun.agent_id == found.id)
            return await runs.page(request, statement)

    async def steps(self, run_id: UUID) -> list[AgentRunStep]:
        async with self.database.unit_of_work(self.tenant) as session:
            runs = Runs(session, self.tenant)
            await runs.get(run_id)
            return await runs.steps(run_id)

    async def wait(self, run_id: UUID, *, timeout_s: float) -> AgentRun:
        """The run when it has ended, or as it is after `timeout_s`."""
        if run_id in self.executor.tasks:
            await self.executor.finished(run_id, timeout_s=timeout_s)
        else:
            await self.streams.ended(self.tenant, run_id, timeout_s=timeout_s)
        return await self.run(run_id)

    async def events(self, run_id: UUID, *, after: int) -> AsyncIterator[LoggedEvent]:
        """Checks that the run is ours, then follows its log."""
        await self.run(run_id)
        return self.streams.follow(self.tenant, run_id, after=after)

    async def cancel(self, run_id: UUID) -> AgentRun:
        """Asks for the end of a run; `wait` for it. A run that has ended stays as it is."""
        async with self.database.unit_of_work(self.tenant) as session:
            runs = Runs(session, self.tenant)
            await runs.get(run_id)
            await runs.request_cancel(run_id)
        self.executor.cancel(run_id)
        return await self.run(run_id)

    def _check_input(self, graph: Json, version: AgentVersion, value: Json) -> None:
        """Refuses, before there is a run, an input that does not fit."""
        try:
            self.executor.factory.build(graph, str(version.id)).validate_input(value)
        except InvalidInput as error:
            errors = [FieldError(f"/body/input{e.pointer}", e.code, e.message) for e in error.errors]
            raise InvalidInput(error.detail, errors=errors) from error

    def _checked(self, draft: Json, catalog: Catalog) -> AgentGraph:
        report = self.compiler.check(draft, catalog)
        if report.errors:
            raise InvalidGraph(report)
        return AgentGraph.model_validate(draft)

    async def _snapshot(
        self, session: AsyncSession, agent: Agent, catalog: Catalog, model_ids: dict[str, str]
    ) -> AgentVersion:
        graph = self._checked(agent.draft, catalog)
        bindings = await self._bindings(session, graph, model_ids)
        # What the names stand for may change under an unchanged draft.
        bound = sha256(f"{graph.content_hash} {json.dumps(bindings, sort_keys=True)}".encode()).hexdigest()
        return await AgentVersions(session, self.tenant).snapshot(
            agent.id, graph=agent.draft, bindings=bindings, content_hash=bound
        )

    async def _published(self, session: AsyncSession, agent: Agent, version: str | int) -> AgentVersion:
        number = agent.live_version if version == "live" else int(version)
        if number is None:
            raise Conflict(
                f"The agent {agent.slug!r} has no published version: publish it, or run version 'draft'.",
                code="not_published",
            )
        found = await AgentVersions(session, self.tenant).number(agent.id, number)
        if found is None:
            raise NotFound(f"The agent {agent.slug!r} has no version {number}.")
        return found

    async def _catalog(self) -> Catalog:
        async with self.database.unit_of_work(self.tenant) as session:
            names = await Collections(session, self.tenant).names()
        return Catalog(models=await self.models.capabilities(), collections=names)

    async def _bindings(self, session: AsyncSession, graph: AgentGraph, model_ids: dict[str, str]) -> Json:
        """The graph's bindings with slugs resolved to ids, so that renaming cannot re-bind a version."""
        collections = Collections(session, self.tenant)
        bound: Json = graph.bindings.model_dump(mode="json")
        bound["collections"] = {
            name: str((await collections.find(target)).id)
            for name, target in graph.bindings.collections.items()
        }
        bound["models"] = {
            name: model_ids.get(target, target) for name, target in graph.bindings.models.items()
        }
        return bound
