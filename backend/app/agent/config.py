"""Settings that agents share across node types: how a model writes, how collections are searched."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.agent.core.base import Binds, Closed
from app.agent.core.interfaces import Role
from app.agent.graph.references import Template


class PromptMessage(Closed):
    """One message of a prompt; its content may hold references."""

    role: Literal[Role.SYSTEM, Role.USER, Role.ASSISTANT]
    content: Template


class ModelSettings(Closed):
    """Which model, and how it samples. `model` names an entry of `bindings.models`."""

    model: Annotated[str, Binds("models")]
    max_tokens: Annotated[int, Field(strict=True, ge=1, le=1_000_000)] | None = None
    temperature: Annotated[float, Field(strict=True, ge=0, le=2)] | None = None


class RetrievalSettings(Closed):
    """Where to search, and how. `collection` names an entry of `bindings.collections`."""

    collection: Annotated[str, Binds("collections")]
    top_k: Annotated[int, Field(strict=True, ge=1, le=200)] = 6
    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"
