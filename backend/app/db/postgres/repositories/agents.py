"""Agents, their versions, and runs with their steps."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Select, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from app.core.ids import new_id
from app.db.base import Json
from app.db.postgres.models.agents import Agent, AgentRun, AgentRunEvent, AgentRunStep, AgentVersion
from app.db.postgres.repositories.base import Repository


class Agents(Repository[Agent]):
    """Agents visible to one project."""

    model = Agent
    noun = "agent"


class AgentVersions(Repository[AgentVersion]):
    model = AgentVersion
    noun = "agent version"
    by_project = False

    async def number(self, agent_id: UUID, version: int) -> AgentVersion | None:
        statement = self.visible().where(AgentVersion.agent_id == agent_id, AgentVersion.version == version)
        return await self.one_or_none(statement)

    def published(self, agent_id: UUID) -> Select[AgentVersion]:
        return self.visible().where(AgentVersion.agent_id == agent_id, AgentVersion.version.is_not(None))

    async def newest_number(self, agent_id: UUID) -> int:
        """0 where nothing was published yet."""
        statement = select(func.coalesce(func.max(AgentVersion.version), 0)).where(
            AgentVersion.org_id == self.tenant.org_id, AgentVersion.agent_id == agent_id
        )
        return (await self.session.execute(statement)).scalar_one() or 0

    async def snapshot(
        self, agent_id: UUID, *, graph: Json, bindings: Json, content_hash: str
    ) -> AgentVersion:
        """The unpublished version with this content, made if it is not there."""
        same = self.visible().where(
            AgentVersion.agent_id == agent_id,
            AgentVersion.content_hash == content_hash,
            AgentVersion.version.is_(None),
        )
        values = {
            "org_id": self.tenant.org_id,
            "id": new_id(),
            "agent_id": agent_id,
            "graph": graph,
            "bindings": bindings,
            "content_hash": content_hash,
            "note": "",
        }
        await self.session.execute(insert(AgentVersion).values(**values).on_conflict_do_nothing())
        return (await self.session.execute(same)).scalar_one()


class Runs(Repository[AgentRun]):
    """Runs of one project."""

    model = AgentRun
    noun = "run"

    async def open_of(self, agent_id: UUID) -> bool:
        statement = select(AgentRun.id).where(
            AgentRun.org_id == self.tenant.org_id,
            AgentRun.agent_id == agent_id,
            AgentRun.finished_at.is_(None),
        )
        return (await self.session.execute(statement.limit(1))).first() is not None

    async def erase_of(self, agent_id: UUID) -> None:
        """Deletes an agent's runs with their logs, which no foreign key ties to them."""
        runs = select(AgentRun.id).where(AgentRun.org_id == self.tenant.org_id, AgentRun.agent_id == agent_id)
        for log in (AgentRunEvent, AgentRunStep):
            await self.session.execute(
                delete(log).where(log.org_id == self.tenant.org_id, log.run_id.in_(runs))
            )
        await self.session.execute(
            delete(AgentRun).where(AgentRun.org_id == self.tenant.org_id, AgentRun.agent_id == agent_id)
        )

    async def request_cancel(self, run_id: UUID) -> None:
        """A durable command; whoever holds the run's lease obeys it."""
        await self.session.execute(
            update(AgentRun)
            .where(
                AgentRun.org_id == self.tenant.org_id,
                AgentRun.id == run_id,
                AgentRun.finished_at.is_(None),
                AgentRun.cancel_requested_at.is_(None),
            )
            .values(cancel_requested_at=func.now())
        )

    async def steps(self, run_id: UUID) -> list[AgentRunStep]:
        """The journal in the order in which the steps began."""
        statement = (
            select(AgentRunStep)
            .where(AgentRunStep.org_id == self.tenant.org_id, AgentRunStep.run_id == run_id)
            .order_by(AgentRunStep.started_at, AgentRunStep.node_path, AgentRunStep.visit)
        )
        return list((await self.session.execute(statement)).scalars())
