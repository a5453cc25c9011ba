"""Logical models: what a name in a graph stands for in this project right now.

A row of the model registry wins over the built-in names. Built in is `default-chat`: the offline
extractive model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from app.agent.core.interfaces import Capability, ChatModel
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.errors import Invalid, NotFound
from app.db.postgres.models.registry import ModelKind, ModelRegistry
from app.db.postgres.repositories.registry import Models
from app.db.session import Database, Tenant

MakeModel = Callable[[str], ChatModel]
BUILT_IN = {DEFAULT_CHAT_MODEL: ("local", "extractive")}


@dataclass(slots=True)
class ModelResolver:
    """`providers` make a chat model of a provider's model name. Implements `Models` of the engine."""

    database: Database
    tenant: Tenant
    providers: Mapping[str, MakeModel]

    async def chat(self, reference: str) -> ChatModel:
        """The model behind a slug or a registry id; `NotFound` or `Invalid` say what is wrong with it."""
        if reference in BUILT_IN:
            rows = [row for row in await self._rows() if row.slug == reference]
            return self._make(*(_target(rows[0]) if rows else BUILT_IN[reference]))
        async with self.database.unit_of_work(self.tenant) as session:
            return self._make(*_target(await Models(session, self.tenant).find(reference)))

    async def capabilities(self) -> dict[str, frozenset[Capability]]:
        """Every chat model of the project, by slug and by id, with what it can do."""
        found = {slug: self._make(*target).capabilities for slug, target in BUILT_IN.items()}
        for row in await self._rows():
            found[row.slug] = found[str(row.id)] = self._make(*_target(row)).capabilities
        return found

    async def ids(self) -> dict[str, str]:
        """Slug → registry id, for the models that have a row."""
        return {row.slug: str(row.id) for row in await self._rows()}

    async def _rows(self) -> list[ModelRegistry]:
        async with self.database.unit_of_work(self.tenant) as session:
            models = Models(session, self.tenant)
            rows = await models.many(models.visible().where(ModelRegistry.kind == ModelKind.CHAT))
            return [row for row in rows if row.provider in self.providers]

    def _make(self, provider: str, model: str) -> ChatModel:
        if provider not in self.providers:
            raise Invalid(f"There is no model provider {provider!r}; there are {sorted(self.providers)}.")
        return self.providers[provider](model)


def _target(row: ModelRegistry) -> tuple[str, str]:
    return row.provider, row.model


def local_models(extractive: ChatModel) -> MakeModel:
    """The provider `local`: models that need no network."""

    def make(model: str) -> ChatModel:
        if model != "extractive":
            raise NotFound(f"The provider 'local' has no model {model!r}; it has 'extractive'.")
        return extractive

    return make
