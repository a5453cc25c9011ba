"""What every use case of agents needs: the project, what is there to be bound, and the compiler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import AgentOffer, Catalog
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.schema import AgentGraph
from app.core.errors import Conflict
from app.core.report import Report
from app.db.base import Json
from app.db.postgres.models.agents import Agent
from app.db.postgres.repositories.rag import Collections
from app.db.postgres.repositories.secrets import Secrets
from app.db.postgres.repositories.subagents import PublishedVersion, SubAgents
from app.db.session import Database, Tenant
from app.services.model_resolver import ModelResolver
from app.services.tool_resolver import ProjectTools


@dataclass(slots=True)
class AgentsOfProject:
    """Agents of one project, for one caller.

    `sees_secrets`: whether the caller may know which names secrets have. `sees_people`: whether they may
    know who the others are.
    """

    database: Database
    tenant: Tenant
    principal: UUID
    compiler: AgentCompiler
    models: ModelResolver
    tools: ProjectTools
    sees_secrets: bool = False
    sees_people: bool = False

    async def check(self, graph: Any) -> Report:
        """Everything that is wrong with `graph` in this project."""
        catalog = await self.catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            catalog = await self.with_agents(session, catalog, graph)
        return self.compiler.check(graph, catalog)

    async def catalog(self) -> Catalog:
        """What any graph may name here but for agents, as far as the caller may know of it."""
        async with self.database.unit_of_work(self.tenant) as session:
            collections = await Collections(session, self.tenant).names()
            secrets = await Secrets(session, self.tenant).names() if self.sees_secrets else None
        found = await self.models.catalog(collections=collections, secrets=secrets)
        return replace(found, tools=await self.tools.catalog())

    async def with_agents(self, session: AsyncSession, catalog: Catalog, graph: Any) -> Catalog:
        """`catalog` with what `graph` needs to know of agents: nothing, where it names none."""
        named = _agents_named(graph)
        if not named:
            return catalog
        return replace(catalog, agents=offers(await SubAgents(session, self.tenant).published(named)))

    def checked(self, draft: Json, catalog: Catalog) -> AgentGraph:
        """The graph that `draft` is; `InvalidGraph` with the whole report."""
        report = self.compiler.check(draft, catalog)
        if report.errors:
            raise InvalidGraph(report)
        return AgentGraph.model_validate(draft)

    async def bound(self, session: AsyncSession, graph: AgentGraph, agent: Agent, catalog: Catalog) -> Json:
        """The bindings of a graph of `agent`; `catalog` has all that they name. Collections by their ids,
        agents by those of their versions; models keep their names until they are called. `Conflict` where
        agents would call each other in a circle."""
        collections = Collections(session, self.tenant)
        bound: Json = graph.bindings.model_dump(mode="json")
        bound["collections"] = {
            name: str((await collections.find(target)).id)
            for name, target in graph.bindings.collections.items()
        }
        bound["agents"] = await self._locked(session, graph.bindings.agents, agent, catalog)
        return bound

    async def _locked(
        self, session: AsyncSession, targets: Mapping[str, str], agent: Agent, catalog: Catalog
    ) -> Json:
        """The versions that sub-agents have from now on."""
        if not targets:
            return {}
        locked = {name: catalog.agents[target].version_id for name, target in targets.items()}
        called = await SubAgents(session, self.tenant).called_by([UUID(one) for one in locked.values()])
        if agent.id in called:
            raise Conflict(
                f"The agent {agent.slug!r} would call itself, by {', '.join(sorted(targets.values()))}.",
                code="cyclic_agents",
            )
        return dict(locked)


def _agents_named(graph: Any) -> set[str]:
    """What `graph`, which may be anything, binds as agents."""
    bindings = graph.get("bindings") if isinstance(graph, Mapping) else None
    agents = bindings.get("agents") if isinstance(bindings, Mapping) else None
    return (
        {name for name in agents.values() if isinstance(name, str)} if isinstance(agents, Mapping) else set()
    )


def offers(versions: Sequence[PublishedVersion]) -> dict[str, AgentOffer]:
    """Agents by slug and id, as far as they are live, and by `slug@version`."""
    found: dict[str, AgentOffer] = {}
    for one in versions:
        outputs = None if one.outputs is None else frozenset(one.outputs)
        offer = AgentOffer(str(one.version_id), one.inputs, outputs)
        found[f"{one.slug}@{one.version}"] = offer
        if one.live:
            found[one.slug] = found[str(one.agent_id)] = offer
    return found
