"""Results of nodes, kept for when the same is asked again."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Uuid

from app.db.base import Json, ProjectRow, tenant_key


class CachedNode(ProjectRow):
    """`id` is the UUIDv5 of project, version and question. `size` counts the characters of `value`.

    `document_ids` are the documents whose text is in it: it goes when one of them does.
    """

    __tablename__ = "agent_node_cache"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("agent_id", "agents"),
        Index("ix_agent_node_cache_expires", "expires_at"),
        Index("ix_agent_node_cache_project", "org_id", "project_id", "created_at", "id"),
        Index("ix_agent_node_cache_agent", "org_id", "agent_id"),
        Index("ix_agent_node_cache_documents", "document_ids", postgresql_using="gin"),
    )

    agent_id: Mapped[UUID]
    value: Mapped[Json]
    size: Mapped[int]
    document_ids: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    expires_at: Mapped[datetime]
