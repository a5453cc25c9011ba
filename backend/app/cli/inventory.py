"""What a start finds in the owner's project, and what that lets people do next."""

from __future__ import annotations

from dataclasses import dataclass

from app.core.constants import DEFAULT_PROJECT, DEMO_NAME
from app.db.postgres.models.agents import Agent
from app.db.postgres.repositories.agents import Agents
from app.db.postgres.repositories.rag import Collections
from app.db.session import Database, Tenant


@dataclass(frozen=True, slots=True)
class Inventory:
    """Counts; `has_demo` where the demo's agent is published."""

    agents: int = 0
    collections: int = 0
    has_demo: bool = False

    def told(self) -> str:
        if not self.agents and not self.collections:
            return f"The project '{DEFAULT_PROJECT}' is empty: 'orrery demo' brings documents and an agent."
        agents, collections = _counted(self.agents, "agent"), _counted(self.collections, "collection")
        return f"The project '{DEFAULT_PROJECT}' has {agents} and {collections}."

    def next_step(self) -> str:
        if self.has_demo:
            return 'orrery ask "How quickly must a suspected security incident be reported?"'
        return "orrery demo"


async def take_inventory(database: Database, tenant: Tenant) -> Inventory:
    async with database.unit_of_work(tenant) as session:
        agents, collections = Agents(session, tenant), Collections(session, tenant)
        demo = agents.visible().where(Agent.slug == DEMO_NAME, Agent.live_version.is_not(None))
        return Inventory(
            agents=await agents.count(agents.visible()),
            collections=await collections.count(collections.visible()),
            has_demo=await agents.count(demo) > 0,
        )


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
