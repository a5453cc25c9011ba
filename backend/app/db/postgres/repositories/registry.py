"""Logical models of a project."""

from __future__ import annotations

from app.db.postgres.models.registry import ModelRegistry
from app.db.postgres.repositories.base import Repository


class Models(Repository[ModelRegistry]):
    model = ModelRegistry
    noun = "model"
