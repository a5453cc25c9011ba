"""Logical names that graphs use, and what they stand for: models and tools of a project."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import CreatedAt, Json, ProjectRow, Revision, tenant_key


class ModelKind(StrEnum):
    CHAT = "chat"
    EMBEDDING = "embedding"


class ModelConnection(ProjectRow):
    """A provider as a project calls it: where, and with which key, sealed like the value of a secret.

    `sealed` is read only where it is asked for; it and `key_id` are null where no key is needed.
    """

    __tablename__ = "model_connections"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("key_id", "organization_keys", ondelete="NO ACTION"),
        UniqueConstraint("org_id", "project_id", "slug"),
        Index("ix_model_connections_key_id", "org_id", "key_id", "id"),
    )

    slug: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    provider: Mapped[str]
    base_url: Mapped[str]
    hint: Mapped[str | None]
    key_id: Mapped[UUID | None]
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)
    key_changed_at: Mapped[datetime | None]
    revision: Mapped[Revision]
    updated_at: Mapped[CreatedAt]

    @property
    def has_key(self) -> bool:
        return self.key_id is not None


class ModelRegistry(ProjectRow):
    """A logical model: `slug` in graphs, `provider` and `model` behind it, by `connection_id` or built in."""

    __tablename__ = "model_registry"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("connection_id", "model_connections", ondelete="NO ACTION"),
        UniqueConstraint("org_id", "project_id", "slug"),
        Index("ix_model_registry_connection_id", "org_id", "connection_id"),
    )

    slug: Mapped[str]
    description: Mapped[str] = mapped_column(default="", server_default="")
    kind: Mapped[ModelKind]
    provider: Mapped[str]
    model: Mapped[str]
    connection_id: Mapped[UUID | None]
    config: Mapped[Json] = mapped_column(default=dict)
    revision: Mapped[Revision]
    updated_at: Mapped[CreatedAt]


class ToolApproval(StrEnum):
    """Which calls that a model asks for a person has to agree to."""

    NEVER = "never"
    WRITES = "writes"
    ALWAYS = "always"


class ToolRegistry(ProjectRow):
    """A tool: `slug` in graphs, `config` as its kind has it, and the `operations` that come of it.

    `unusable`: what its server or document offers besides, each with the reason.
    """

    __tablename__ = "tool_registry"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        UniqueConstraint("org_id", "project_id", "slug"),
    )

    slug: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    kind: Mapped[str]
    config: Mapped[Json] = mapped_column(default=dict)
    operations: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'::jsonb"))
    unusable: Mapped[list[Any]] = mapped_column(default=list, server_default=text("'[]'::jsonb"))
    approval: Mapped[ToolApproval] = mapped_column(default=ToolApproval.NEVER, server_default="never")
    revision: Mapped[Revision]
    updated_at: Mapped[CreatedAt]
