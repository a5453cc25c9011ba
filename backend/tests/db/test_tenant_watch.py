"""A repository that forgets the tenant is caught, although row-level security would hide it."""

from __future__ import annotations

import pytest
from sqlalchemy import ColumnElement, Select, delete, exists, literal, select, text, update
from sqlalchemy.orm import aliased

from app.core.ids import new_id
from app.db.postgres.models.agents import Agent, AgentRun, AgentVersion
from app.db.postgres.models.identity import Organization
from app.db.postgres.models.rag import ChunkRow, Document
from app.db.postgres.repositories.agents import Agents
from app.db.postgres.repositories.base import Repository
from app.rag.providers.vector_store.pgvector_tables import entries
from tests.factories import Factory
from tests.fixtures import Running
from tests.tenant_watch import TenantForgotten, check

ORG = new_id()
Runs = aliased(AgentRun)
SAME = (Document.org_id == ChunkRow.org_id) & (Document.id == ChunkRow.document_id)


class Forgetful(Repository[Agent]):
    """Forgets everything: whose rows, and which project's."""

    model = Agent
    noun = "agent"

    def visible(self) -> Select[Agent]:
        return select(Agent)


class TestForgetfulRepository:
    async def test_is_caught(self, server: Running, make: Factory) -> None:
        mine = await make.member()
        async with server.resources.database.unit_of_work(mine.tenant) as session:
            with pytest.raises(TenantForgotten, match="agents"):
                await Forgetful(session, mine.tenant).find("handbook")
            assert (await session.execute(Agents(session, mine.tenant).visible())).all() == []

    async def test_would_be_held_by_the_second_wall(self, server: Running, make: Factory) -> None:
        mine, other = await make.member(), await make.member()
        agent = Agent(
            org_id=other.tenant.org_id,
            id=new_id(),
            project_id=other.tenant.project,
            slug="theirs",
            name="Theirs",
            draft={},
        )
        async with server.resources.database.unit_of_work(other.tenant) as session:
            await Agents(session, other.tenant).add(agent)
        async with server.resources.database.unit_of_work(mine.tenant) as session:
            found = await session.execute(text("SELECT id, org_id FROM agents"))
            assert found.all() == []


class TestForgotten:
    @pytest.mark.parametrize(
        "statement",
        [
            select(Agent),
            select(Agent.name).where(Agent.id == ORG),
            select(entries.c.chunk_id).where(entries.c.index_id == ORG),
            select(ChunkRow, Document.title).join(Document, SAME),
            select(ChunkRow)
            .join(Document, Document.id == ChunkRow.document_id)
            .where(ChunkRow.org_id == ORG),
            select(Runs).where(AgentRun.org_id == ORG),
            select(Agent).where(Agent.org_id == ORG, Agent.id.in_(select(AgentRun.agent_id))),
            select(Agent).where(Agent.org_id == Agent.org_id),
            select(Agent).where(Agent.org_id != ORG),
            select(Organization).where(exists().where(Agent.name == "theirs")),
            update(Agent).values(name="stolen"),
            delete(AgentRun).where(AgentRun.agent_id == ORG),
            text("SELECT * FROM documents WHERE id = :id"),
            text("UPDATE agents SET name = 'stolen'"),
        ],
        ids=str,
    )
    def test_is_raised(self, statement: ColumnElement[object]) -> None:
        with pytest.raises(TenantForgotten):
            check(statement)


class TestRemembered:
    @pytest.mark.parametrize(
        "statement",
        [
            select(Agent).where(Agent.org_id == ORG),
            select(Agent).where(literal(ORG) == Agent.org_id),
            select(ChunkRow, Document.title).join(Document, SAME).where(ChunkRow.org_id == ORG),
            select(Runs).where(Runs.org_id == ORG),
            select(Agent).where(
                Agent.org_id == ORG, Agent.id.in_(select(AgentRun.agent_id).where(AgentRun.org_id == ORG))
            ),
            select(AgentVersion.id)
            .join(Agent, (Agent.org_id == AgentVersion.org_id) & (Agent.id == AgentVersion.agent_id))
            .where(Agent.org_id == ORG),
            update(Agent).where(Agent.org_id == ORG).values(name="mine"),
            delete(AgentRun).where(AgentRun.org_id == ORG),
            select(Organization),
            text("SELECT * FROM documents WHERE org_id = :org"),
            text("SELECT 1"),
        ],
        ids=str,
    )
    def test_passes(self, statement: ColumnElement[object]) -> None:
        check(statement)
