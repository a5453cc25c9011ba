"""Drafts of agents: made, changed under an optimistic lock, checked, archived, deleted."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.report import Report
from app.core.slugs import check_slug, slugify
from app.db.base import Json
from app.db.postgres.models.agents import Agent
from app.db.postgres.models.jobs import JobKind, WorkKind
from app.db.postgres.repositories.agents import Agents, Runs
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.subagents import SubAgents
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.services.agents.project import AgentsOfProject

_RESERVED = frozenset({"node-types"})
"""Slugs that stand for something else where an agent is named: `GET /agents/node-types`."""


class Archived(StrEnum):
    """Which agents a list has: those in use, those in the archive, or all."""

    FALSE = "false"
    TRUE = "true"
    ANY = "any"


@dataclass(slots=True)
class Drafts(AgentsOfProject):
    """Opens short transactions of its own."""

    async def create(
        self, name: str, *, slug: str | None = None, description: str = "", graph: Json | None = None
    ) -> Agent:
        """A draft; it may be incomplete. `Conflict` where the slug is taken, or means something else."""
        slug = check_slug(slug) if slug else slugify(name)
        async with self.database.unit_of_work(self.tenant) as session:
            return await self.added(session, name, slug, description=description, graph=graph or {})

    async def added(
        self, session: AsyncSession, name: str, slug: str, *, description: str, graph: Json
    ) -> Agent:
        if slug in _RESERVED:
            raise Conflict(f"{slug!r} is a path of the API's own; choose another slug.", code="duplicate")
        agent = Agent(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=slug,
            name=name,
            description=description,
            draft=graph,
        )
        return await Agents(session, self.tenant).add(
            agent, duplicate=f"There is an agent {agent.slug!r} already; choose another slug."
        )

    async def get(self, reference: str) -> Agent:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Agents(session, self.tenant).find(reference)

    async def page(
        self, request: PageRequest, *, q: str | None = None, archived: Archived = Archived.FALSE
    ) -> Page[Agent]:
        """Without drafts. `q` is looked for in names and slugs."""
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            statement = agents.visible()
            if archived is not Archived.ANY:
                statement = statement.where(Agent.archived_at.is_not(None) == (archived is Archived.TRUE))
            if q is not None:
                statement = statement.where(contains(q, Agent.name, Agent.slug))
            return await agents.page(request, statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> Agent:
        """Changes `name`, `description` or `graph`, None emptying it; only if at one of `revisions`.

        `Conflict` where the agent is archived.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.editable(reference)
            agents.demand_revision(agent, revisions)
            return await self.changed(session, agent, changes)

    async def changed(self, session: AsyncSession, agent: Agent, changes: Json) -> Agent:
        agent.name = changes.get("name", agent.name)
        agent.description = changes.get("description", agent.description) or ""
        agent.draft = changes.get("graph", agent.draft) or {}
        return await _revised(session, agent)

    async def archive(self, reference: str, *, revisions: Collection[int] | None = None) -> Agent:
        """From now on it is neither run nor changed nor listed; runs that have begun go on."""
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.find(reference, lock=True)
            agents.demand_revision(agent, revisions)
            if agent.archived_at is not None:
                return agent
            agent.archived_at = func.now()
            return await _revised(session, agent)

    async def unarchive(self, reference: str, *, revisions: Collection[int] | None = None) -> Agent:
        """As it was before it was archived."""
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.find(reference, lock=True)
            agents.demand_revision(agent, revisions)
            if agent.archived_at is None:
                return agent
            agent.archived_at = None
            return await _revised(session, agent)

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Hides an agent with its versions and runs; a job erases them. Only if at one of `revisions`.

        Refused while one of the runs executes, and while other agents call it.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.find(reference, lock=True)
            agents.demand_revision(agent, revisions)
            if oldest := await Runs(session, self.tenant).open_of(agent.id):
                message = f"Runs of this agent have not ended: cancel them first. The oldest is {oldest}."
                raise Conflict(message, code="runs_open")
            if callers := await SubAgents(session, self.tenant).callers(agent.id):
                named = ", ".join(map(repr, callers))
                raise Conflict(f"This agent is called by {named}: publish them without it.", code="in_use")
            await agents.hide(agent)
            job = await Jobs(session, self.tenant).open(JobKind.ERASE_AGENT, agent.id)
            await WorkItems(session, self.tenant).queue(WorkKind.ERASE_AGENT, agent.id, job_id=job.id)

    async def validate(self, reference: str, graph: Any = None) -> Report:
        """Everything that is wrong with `graph`, or with the draft where it is None."""
        agent = await self.get(reference)
        return await self.check(agent.draft if graph is None else graph)


async def _revised(session: AsyncSession, agent: Agent) -> Agent:
    """The agent as it is stored now, one revision further."""
    agent.revision += 1
    agent.updated_at = func.now()
    await session.flush()
    await session.refresh(agent)
    return agent
