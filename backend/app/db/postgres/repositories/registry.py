"""What graphs of a project name: logical models with the connections they are called by, and tools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal
from uuid import UUID

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.core.slugs import as_uuid
from app.db.postgres.models.agents import Agent, AgentVersion
from app.db.postgres.models.registry import (
    ModelConnection,
    ModelKind,
    ModelRegistry,
    ToolApproval,
    ToolRegistry,
)
from app.db.postgres.models.secrets import OrganizationKey
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts
from app.db.session import Tenant

Target = tuple[ModelRegistry, ModelConnection | None, OrganizationKey | None]
"""A logical model with its connection, if it has one, and the data key for that one's key."""


class Models(Repository[ModelRegistry]):
    model = ModelRegistry
    noun = "model"
    sorts: ClassVar[Sorts] = {"created_at": ModelRegistry.created_at, "slug": ModelRegistry.slug}

    def chat(self) -> Select[ModelRegistry]:
        return self.visible().where(ModelRegistry.kind == ModelKind.CHAT)

    async def target(self, reference: str) -> Target | None:
        """What the chat model with this slug or id is called by, as of one moment; None if there is none."""
        row_id = as_uuid(reference)
        named = ModelRegistry.slug == reference if row_id is None else ModelRegistry.id == row_id
        by = (ModelConnection.org_id == ModelRegistry.org_id) & (
            ModelConnection.id == ModelRegistry.connection_id
        )
        same_key = (OrganizationKey.org_id == ModelConnection.org_id) & (
            OrganizationKey.id == ModelConnection.key_id
        )
        statement = (
            self.chat()
            .where(named)
            .outerjoin(ModelConnection, by)
            .outerjoin(OrganizationKey, same_key)
            .add_columns(ModelConnection, OrganizationKey)
            .options(undefer(ModelConnection.sealed))
        )
        row = (await self.session.execute(statement)).one_or_none()
        return (row[0], row[1], row[2]) if row else None

    async def slugs_by(self, connection: ModelConnection) -> list[str]:
        """The models that are called by this connection."""
        statement = (
            select(ModelRegistry.slug)
            .where(ModelRegistry.org_id == self.tenant.org_id, ModelRegistry.connection_id == connection.id)
            .order_by(ModelRegistry.slug)
        )
        return list((await self.session.execute(statement)).scalars())

    async def callers(self, model: ModelRegistry) -> list[str]:
        """The agents whose live version calls this model, by its name or its id."""
        return await _callers(self.session, self.tenant, "models", model)


class ModelConnections(Repository[ModelConnection]):
    model = ModelConnection
    noun = "model connection"
    sorts: ClassVar[Sorts] = {"created_at": ModelConnection.created_at, "slug": ModelConnection.slug}


@dataclass(frozen=True, slots=True)
class OfferedTool:
    """What a tool offers, without how it is called."""

    id: UUID
    slug: str
    approval: ToolApproval
    operations: list[Any]


class Tools(Repository[ToolRegistry]):
    model = ToolRegistry
    noun = "tool"
    sorts: ClassVar[Sorts] = {"created_at": ToolRegistry.created_at, "slug": ToolRegistry.slug}

    async def offered(self) -> list[OfferedTool]:
        columns = (ToolRegistry.id, ToolRegistry.slug, ToolRegistry.approval, ToolRegistry.operations)
        rows = await self.session.execute(self.visible().with_only_columns(*columns))
        return [OfferedTool(*row) for row in rows]

    async def callers(self, tool: ToolRegistry) -> list[str]:
        """The agents whose live version calls this tool, by its name or its id."""
        return await _callers(self.session, self.tenant, "tools", tool)


async def _callers(
    session: AsyncSession,
    tenant: Tenant,
    kind: Literal["models", "tools"],
    row: ModelRegistry | ToolRegistry,
) -> list[str]:
    bound = func.jsonb_each_text(AgentVersion.bindings[kind]).table_valued("key", "value")
    calls = select(1).select_from(bound).where(bound.c.value.in_([row.slug, str(row.id)])).exists()
    live = (AgentVersion.org_id == Agent.org_id) & (AgentVersion.agent_id == Agent.id)
    statement = (
        select(Agent.slug)
        .join(AgentVersion, live & (AgentVersion.version == Agent.live_version))
        .where(
            Agent.org_id == tenant.org_id,
            Agent.project_id == tenant.project,
            Agent.deleted_at.is_(None),
            calls,
        )
        .order_by(Agent.slug)
    )
    return list((await session.execute(statement)).scalars())
