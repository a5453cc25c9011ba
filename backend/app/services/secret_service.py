"""Secrets: credentials that are written once, used by name, and never shown again."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.envelope import Key, MasterKeys, Unreadable
from app.core.errors import AppError, FieldError, Invalid
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug
from app.db.base import Json
from app.db.postgres.models.secrets import Secret
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.secrets import Secrets
from app.db.session import Database, Tenant
from app.services.sealing import hint, open_from, opened, seal_into, with_data_key


class SecretUnreadable(AppError):
    """A stored value does not open with its key: the row was changed by other hands."""

    code, title = "secret_unreadable", "Secret unreadable"


@dataclass(slots=True)
class SecretService:
    """Secrets of one project. Opens transactions of its own: making a data key takes another one."""

    database: Database
    tenant: Tenant
    masters: MasterKeys
    max_bytes: int

    async def create(self, name: str, value: SecretStr, *, description: str = "") -> Secret:
        """`Conflict` where the name is taken."""
        plaintext = self._checked(value)
        row = Secret(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=check_slug(name, pointer="/body/name"),
            description=description,
            hint=hint(value),
            value_changed_at=datetime.now(UTC),
        )

        async def insert(session: AsyncSession, key: Key) -> Secret:
            seal_into(row, key, plaintext)
            return await Secrets(session, self.tenant).add(
                row,
                duplicate=f"There is a secret {name!r} already; choose another name, or replace its value.",
            )

        return await with_data_key(self.database, self.masters, self.tenant, insert)

    async def get(self, reference: str) -> Secret:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Secrets(session, self.tenant).find(reference)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[Secret]:
        """`q` is a part of the name."""
        async with self.database.unit_of_work(self.tenant) as session:
            secrets = Secrets(session, self.tenant)
            statement = secrets.visible()
            return await secrets.page(request, statement.where(contains(q, Secret.slug)) if q else statement)

    async def update(
        self, reference: str, changes: Json, *, revisions: Collection[int] | None = None
    ) -> Secret:
        """Changes `description` (None empties it); only if at one of `revisions`."""
        async with self.database.unit_of_work(self.tenant) as session:
            row = await self._changed(session, reference, revisions)
            row.description = changes.get("description", row.description) or ""
            return row

    async def replace(
        self, reference: str, value: SecretStr, *, revisions: Collection[int] | None = None
    ) -> Secret:
        """Whoever asks from now on gets the new value; the old one is gone. Only if at one of `revisions`."""
        plaintext = self._checked(value)

        async def update(session: AsyncSession, key: Key) -> Secret:
            row = await self._changed(session, reference, revisions)
            seal_into(row, key, plaintext)
            row.hint, row.value_changed_at = hint(value), row.updated_at
            return row

        return await with_data_key(self.database, self.masters, self.tenant, update)

    async def delete(self, reference: str, *, revisions: Collection[int] | None = None) -> None:
        """Only if at one of `revisions`."""
        async with self.database.unit_of_work(self.tenant) as session:
            secrets = Secrets(session, self.tenant)
            row = await secrets.find(reference, lock=True)
            secrets.demand_revision(row, revisions)
            await session.delete(row)

    async def reveal(self, reference: str) -> SecretStr:
        """The value of the secret with this name or id, for the moment of its use.

        For services that call somebody in the tenant's name (tools, model connections, http nodes, mail):
        they ask right before the call, hand `get_secret_value()` to the client, and keep, log or return
        it nowhere. Never for routers and commands: `scripts/lint.py` refuses it outside `app.services`.

        Raises:
            NotFound: there is no such secret in this project.
            Unavailable: this process does not have the master key; says what to do.
            SecretUnreadable: the stored value was changed by other hands.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            row, stored = await Secrets(session, self.tenant).opened(reference)
        try:
            key = await opened(self.database, self.masters, stored)
            return SecretStr(open_from(row, key).decode())
        except Unreadable as error:
            raise SecretUnreadable(
                f"The value of the secret {row.slug!r} cannot be decrypted ({error}): set it again."
            ) from error

    async def _changed(
        self, session: AsyncSession, reference: str, revisions: Collection[int] | None
    ) -> Secret:
        """The locked row, at its next revision."""
        secrets = Secrets(session, self.tenant)
        row = await secrets.find(reference, lock=True)
        secrets.demand_revision(row, revisions)
        row.revision += 1
        row.updated_at = datetime.now(UTC)
        return row

    def _checked(self, value: SecretStr) -> bytes:
        plaintext = value.get_secret_value().encode()
        if len(plaintext) > self.max_bytes:
            message = f"the value has {len(plaintext)} bytes; at most {self.max_bytes} are taken"
            raise Invalid(message, errors=[FieldError("/body/value", "too_long", message)])
        return plaintext
