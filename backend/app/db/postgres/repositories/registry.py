"""Logical models and tools of a project."""

from __future__ import annotations

from app.db.postgres.models.registry import ModelRegistry, ToolRegistry
from app.db.postgres.repositories.base import Repository


class Models(Repository[ModelRegistry]):
    model = ModelRegistry
    noun = "model"


class Tools(Repository[ToolRegistry]):
    model = ToolRegistry
    noun = "tool"
