"""Agents: edited as drafts, checked, published as immutable versions, run."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import Catalog
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.ports import InvalidInput
from app.agent.graph.schema import AgentGraph
from app.core.constants import MAX_DIGITS
from app.core.errors import Conflict, FieldError, Invalid, NotFound
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.report import Report
from app.core.slugs import as_uuid, check_slug, slugify
from app.db.base import Json
from app.db.postgres.models.agents import Agent, AgentRun, AgentRunStep, AgentVersion, RunMode, RunStatus
from app.db.postgres.models.jobs import JobKind, WorkKind
from app.db.postgres.repositories.agents import Agents, AgentVersions, Runs, RunSteps
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.rag import Collections
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Database, Tenant, commit_with
from app.services.model_resolver import ModelResolver
from app.services.runs.execution import Execution
from app.services.runs.executor import Executor
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.streams import RunStreams


@dataclass(frozen=True, slots=True)
class RunRequest:
    """`version` is `live`, `draft` or a number."""

    input: Json
    mode: RunMode
    version: str | int = "live"
    metadata: Json | None = None


@dataclass(frozen=True, slots=True)
class RunFilters:
    """All that are given must hold. `version` is an id, or a number of `agent`; times are exclusive."""

    statuses: Sequence[RunStatus] = ()
    agent: str | None = None
    version: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None


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

    async def version(self, reference: str, version: str) -> AgentVersion:
        """The version that `version`, a number or an id, names."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            return await self._version(session, agent, version)

    async def start_run(self, reference: str, request: RunRequest) -> AgentRun:
        """Creates the run; starts it detached from the caller, or leaves it to whoever has room for it."""
        if request.mode is RunMode.BACKGROUND:
            run, _ = await self._created(reference, request)
            self.executor.queue_news.set()
            return run
        with self.executor.reserved():
            run, agent = await self._created(reference, request)
            self.executor.start(Execution(self.tenant, run.id, 1, agent, request.input))
            return run

    async def _created(self, reference: str, request: RunRequest) -> tuple[AgentRun, ExecutableAgent]:
        catalog = await self._catalog() if request.version == "draft" else None
        model_ids = await self.models.ids() if request.version == "draft" else {}
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).for_run(reference)
            if catalog is not None:
                version = await self._snapshot(session, agent, catalog, model_ids)
            else:
                version = await self._published(session, agent, request.version)
            runnable = self._runnable(version, request.input)
            here: Json = {"status": RunStatus.QUEUED}
            if request.mode is not RunMode.BACKGROUND:
                here = {
                    "status": RunStatus.RUNNING,
                    "lease_owner": self.executor.owner,
                    "lease_until": func.now() + timedelta(seconds=self.executor.lease_s),
                    "fence": 1,
                    "started_at": func.now(),
                }
            run = AgentRun(
                org_id=self.tenant.org_id,
                id=new_id(),
                project_id=self.tenant.project,
                agent_id=agent.id,
                version_id=version.id,
                mode=request.mode,
                input=request.input,
                run_metadata=request.metadata or {},
                **here,
            )
            await Runs(session, self.tenant).add(run)
            commit_with(session, run.id)
            failpoint("run.creating")
        failpoint("run.created")
        return run, runnable

    async def run(self, run_id: UUID) -> AgentRun:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Runs(session, self.tenant).get(run_id)

    async def runs(self, request: PageRequest, filters: RunFilters | None = None) -> Page[AgentRun]:
        """Without inputs and outputs; `NotFound` where a filter names what is not there."""
        wanted = filters or RunFilters()
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(wanted.agent) if wanted.agent else None
            version = await self._wanted(session, agent, wanted.version) if wanted.version else None
            runs = Runs(session, self.tenant)
            statement = runs.matching(
                statuses=wanted.statuses,
                agent_id=agent.id if agent else None,
                version_id=version.id if version else None,
                after=wanted.created_after,
                before=wanted.created_before,
            )
            return await runs.page(request, statement)

    async def steps(self, run_id: UUID, request: PageRequest) -> Page[AgentRunStep]:
        async with self.database.unit_of_work(self.tenant) as session:
            await Runs(session, self.tenant).get(run_id)
            steps = RunSteps(session, self.tenant)
            return await steps.page(request, steps.of(run_id))

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
        if not self.executor.cancel(run_id):
            self.executor.queue_news.set()  # it may wait to be claimed, which is when it ends
        return await self.run(run_id)

    def _runnable(self, version: AgentVersion, value: Json) -> ExecutableAgent:
        """Refuses, before there is a run, an input that does not fit."""
        graph = version.graph | {"bindings": version.bindings}
        agent = self.executor.factory.build(graph, str(version.id))
        try:
            agent.validate_input(value)
        except InvalidInput as error:
            errors = [FieldError(f"/body/input{e.pointer}", e.code, e.message) for e in error.errors]
            raise InvalidInput(error.detail, errors=errors) from error
        return agent

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

    async def _wanted(self, session: AsyncSession, agent: Agent | None, reference: str) -> AgentVersion:
        if agent is not None:
            return await self._version(session, agent, reference)
        version_id = as_uuid(reference)
        if version_id is None:
            raise _needs_agent(reference)
        return await AgentVersions(session, self.tenant).of_project(version_id)

    async def _version(self, session: AsyncSession, agent: Agent, reference: str) -> AgentVersion:
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
            names = await Collections(session, self.tenant).names()
        return await self.models.catalog(collections=names)

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


def _needs_agent(version: str) -> Invalid:
    message = f"{version!r} is no id; a version's number needs the filter `agent` beside it"
    return Invalid(message, errors=[FieldError("/query/version", "agent_missing", message)])
