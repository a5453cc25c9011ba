"""Connections to model providers: where they are called, and with which key, which is never shown again."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from pydantic import SecretStr
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.base_urls import origin
from app.core.envelope import Key, MasterKeys
from app.core.errors import Conflict, FieldError, Invalid
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug
from app.db.base import Json
from app.db.postgres.models.registry import ModelConnection
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.registry import ModelConnections, Models
from app.db.session import Database, Tenant, after_commit
from app.services.sealing import hint, seal_into, with_data_key

_MAX_KEY_BYTES = 8 * 2**10
"""What fits into a header everywhere."""


@dataclass(frozen=True, slots=True)
class ModelConnectionService:
    """Connections of one project; `changed` is told, after the commit, whose have changed."""

    database: Database
    tenant: Tenant
    masters: MasterKeys
    changed: Callable[[Tenant], None]

    async def create(
        self, slug: str, *, provider: str, base_url: str, api_key: SecretStr | None, description: str = ""
    ) -> ModelConnection:
        """`Conflict` where the slug is taken."""
        row = ModelConnection(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=check_slug(slug),
            description=description,
            provider=provider,
            base_url=base_url,
        )

        async def insert(session: AsyncSession, key: Key | None) -> ModelConnection:
            _set_key(row, api_key, key)
            connections = ModelConnections(session, self.tenant)
            return await connections.add(
                row, duplicate=f"There is a model connection {slug!r} already; choose another slug."
            )

        return await self._written(insert, api_key)

    async def get(self, reference: str) -> ModelConnection:
        async with self.database.unit_of_work(self.tenant) as session:
            return await ModelConnections(session, self.tenant).find(reference)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[ModelConnection]:
        """`q` is a part of the slug."""
        async with self.database.unit_of_work(self.tenant) as session:
            connections = ModelConnections(session, self.tenant)
            statement = connections.visible()
            if q is not None:
                statement = statement.where(contains(q, ModelConnection.slug))
            return await connections.page(request, statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> ModelConnection:
        """Changes `base_url`, `api_key` (None removes it) or `description`; only if at one of `revisions`.

        A key is never sent to another host than the one it was given for: `Invalid` where it is not given
        again, or removed, with the host's change.
        """
        api_key = changes.get("api_key")

        async def change(session: AsyncSession, key: Key | None) -> ModelConnection:
            connections = ModelConnections(session, self.tenant)
            row = await connections.find(reference, lock=True)
            connections.demand_revision(row, revisions)
            base_url = changes.get("base_url", row.base_url)
            if row.key_id and "api_key" not in changes and origin(base_url) != origin(row.base_url):
                raise _key_required(row)
            row.base_url = base_url
            row.description = changes.get("description", row.description) or ""
            row.revision += 1
            row.updated_at = datetime.now(UTC)
            if "api_key" in changes:
                _set_key(row, api_key, key)
            after_commit(session, partial(self.changed, self.tenant))
            return row

        return await self._written(change, api_key)

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Only if at one of `revisions`; `Conflict` while models are called by it."""
        async with self.database.unit_of_work(self.tenant) as session:
            connections = ModelConnections(session, self.tenant)
            row = await connections.find(reference, lock=True)
            connections.demand_revision(row, revisions)
            if users := await Models(session, self.tenant).slugs_by(row):
                raise _in_use(row, users)
            after_commit(session, partial(self.changed, self.tenant))
            try:
                async with session.begin_nested():
                    await session.delete(row)
            except IntegrityError as error:  # a model was bound to it a moment ago
                raise _in_use(row, []) from error

    async def _written(self, write: _Write, api_key: SecretStr | None) -> ModelConnection:
        """`write` with the data key where there is something to seal."""
        if api_key is None:
            async with self.database.unit_of_work(self.tenant) as session:
                return await write(session, None)
        size = len(api_key.get_secret_value().encode())
        if size > _MAX_KEY_BYTES or not _fits_header(api_key):
            message = f"a key has at most {_MAX_KEY_BYTES} bytes, all of them visible ASCII"
            raise Invalid(message, errors=[FieldError("/body/api_key", "invalid_key", message)])
        return await with_data_key(self.database, self.masters, self.tenant, write)


class _Write(Protocol):
    async def __call__(self, session: AsyncSession, key: Key | None) -> ModelConnection: ...


def _fits_header(key: SecretStr) -> bool:
    text = key.get_secret_value()
    return text.isascii() and text.isprintable() and " " not in text


def _set_key(row: ModelConnection, api_key: SecretStr | None, key: Key | None) -> None:
    if api_key is None or key is None:
        row.key_id = row.sealed = row.hint = row.key_changed_at = None
        return
    seal_into(row, key, api_key.get_secret_value().encode())
    row.hint, row.key_changed_at = hint(api_key), datetime.now(UTC)


def _key_required(row: ModelConnection) -> Invalid:
    message = f"the key of {row.slug!r} was given for another host: give it again, or null to call without"
    return Invalid(message, errors=[FieldError("/body/api_key", "key_required", message)])


def _in_use(row: ModelConnection, users: list[str]) -> Conflict:
    named = ", ".join(map(repr, users[:10])) or "one that was made a moment ago"
    return Conflict(
        f"Models are called by the connection {row.slug!r}: {named}. Delete or change them first.",
        code="in_use",
    )
