"""The registry of logical models: what a project's graphs name, and what that stands for."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import ChatModel
from app.api.schemas.models import ModelConfig
from app.core.constants import DEFAULT_CHAT_MODEL
from app.core.errors import Conflict, FieldError, Invalid, NotFound
from app.core.ids import new_id
from app.core.merge_patch import merge_patch
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug
from app.db.base import Json
from app.db.postgres.models.registry import ModelKind, ModelRegistry
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.registry import ModelConnections, Models
from app.db.session import Database, Tenant, after_commit
from app.services.llm.environment import LOCAL_PROVIDER


@dataclass(frozen=True, slots=True)
class ModelService:
    """Logical models of one project. `providers` make those that need no connection.

    `changed` is told, after the commit, whose models have changed.
    """

    database: Database
    tenant: Tenant
    providers: Mapping[str, Callable[[str], ChatModel]]
    changed: Callable[[Tenant], None]

    async def create(
        self,
        slug: str,
        *,
        model: str,
        connection: str | None = None,
        config: ModelConfig | None = None,
        description: str = "",
    ) -> ModelRegistry:
        """`Conflict` where the slug is taken, `NotFound` for a connection that does not exist."""
        row = ModelRegistry(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=check_slug(slug),
            kind=ModelKind.CHAT,
            description=description,
            config=_stored(config or ModelConfig()),
        )
        async with self.database.unit_of_work(self.tenant) as session:
            await self._bind(session, row, model, connection)
            after_commit(session, partial(self.changed, self.tenant))
            return await Models(session, self.tenant).add(
                row, duplicate=f"There is a model {slug!r} already; choose another slug, or change that one."
            )

    async def get(self, reference: str) -> ModelRegistry:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Models(session, self.tenant).find(reference)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[ModelRegistry]:
        """`q` is a part of the slug or of the model's name at its provider."""
        async with self.database.unit_of_work(self.tenant) as session:
            models = Models(session, self.tenant)
            statement = models.visible()
            if q is not None:
                statement = statement.where(contains(q, ModelRegistry.slug, ModelRegistry.model))
            return await models.page(request, statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> ModelRegistry:
        """Changes `model`, `connection` (None: local), `config` (merged) or `description`.

        Only if at one of `revisions`. Runs take the change from their next call of the model on.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            models = Models(session, self.tenant)
            row = await models.find(reference, lock=True)
            models.demand_revision(row, revisions)
            if "model" in changes or "connection" in changes:
                bound = str(row.connection_id) if row.connection_id else None
                name, connection = changes.get("model", row.model), changes.get("connection", bound)
                await self._bind(session, row, name, connection)
            if "config" in changes:
                row.config = _merged(row.config, changes["config"])
            row.description = changes.get("description", row.description) or ""
            row.revision += 1
            row.updated_at = datetime.now(UTC)
            after_commit(session, partial(self.changed, self.tenant))
            return row

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Only if at one of `revisions`; `Conflict` while agents are live that call it.

        `default-chat` always has another meaning, and can go.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            models = Models(session, self.tenant)
            row = await models.find(reference, lock=True)
            models.demand_revision(row, revisions)
            if row.slug != DEFAULT_CHAT_MODEL and (users := await models.callers(row)):
                raise _in_use(row, users)
            after_commit(session, partial(self.changed, self.tenant))
            await session.delete(row)

    async def _bind(
        self, session: AsyncSession, row: ModelRegistry, model: str, connection: str | None
    ) -> None:
        """Lets `row` stand for `model`, by a connection or, without one, of the provider `local`."""
        row.model = model
        if connection is not None:
            found = await ModelConnections(session, self.tenant).find(connection)
            row.connection_id, row.provider = found.id, found.provider
            return
        row.connection_id, row.provider = None, LOCAL_PROVIDER
        try:
            self.providers[LOCAL_PROVIDER](model)
        except NotFound as error:
            message = f"{error.detail} Other models need a connection: POST /api/v1/model-connections."
            raise Invalid(message, errors=[FieldError("/body/model", "unknown_model", message)]) from error


def _in_use(row: ModelRegistry, users: list[str]) -> Conflict:
    named = ", ".join(map(repr, users[:10])) + (", …" if len(users) > 10 else "")
    return Conflict(
        f"Published agents call the model {row.slug!r}: {named}. Bind them to another one and publish them, "
        "or delete them first.",
        code="in_use",
    )


def _stored(config: ModelConfig) -> Json:
    return config.model_dump(mode="json", exclude_defaults=True)


def _merged(config: Json, changes: Json | None) -> Json:
    """`config` patched, or emptied by None; `Invalid` with pointers where the result is wrong."""
    try:
        return _stored(ModelConfig.model_validate(merge_patch(config, changes or {}) if changes else {}))
    except ValidationError as error:
        errors = [
            FieldError("/".join(("/body/config", *map(str, one["loc"]))), one["type"], one["msg"])
            for one in error.errors(include_url=False, include_input=False)
        ]
        raise Invalid("; ".join(one.message for one in errors[:5]), errors=errors) from error
