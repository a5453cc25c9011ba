"""Logical names that graphs use, and what they stand for: models and tools of a project."""

from __future__ import annotations

from enum import StrEnum

from sqlalchemy import UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Json, ProjectRow, tenant_key


class ModelKind(StrEnum):
    CHAT = "chat"
    EMBEDDING = "embedding"


class ModelRegistry(ProjectRow):
    """A logical model: `slug` in graphs, `provider` and `model` behind it."""

    __tablename__ = "model_registry"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        UniqueConstraint("org_id", "project_id", "slug"),
    )

    slug: Mapped[str]
    kind: Mapped[ModelKind]
    provider: Mapped[str]
    model: Mapped[str]
    config: Mapped[Json] = mapped_column(default=dict)


class ToolRegistry(ProjectRow):
    """A tool: `slug` in graphs, its input and output as JSON Schema, and how it is called."""

    __tablename__ = "tool_registry"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        UniqueConstraint("org_id", "project_id", "slug"),
    )

    slug: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    kind: Mapped[str]
    input_schema: Mapped[Json] = mapped_column(default=dict)
    config: Mapped[Json] = mapped_column(default=dict)
