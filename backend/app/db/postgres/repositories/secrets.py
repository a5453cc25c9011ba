"""Secrets of a project, data keys of organizations, and the keys of the installation."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar
from uuid import UUID

from sqlalchemy import Select, delete, exists, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import undefer

from app.core.slugs import as_uuid
from app.db.postgres.models.registry import ModelConnection
from app.db.postgres.models.secrets import InstallationKey, OrganizationKey, Secret
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts

PEPPER = "api-keys"


@dataclass(frozen=True, slots=True)
class InstallationKeys:
    """Keys of the installation; takes a session of `system_work`. All are wrapped by one master key."""

    session: AsyncSession

    async def get(self, name: str) -> InstallationKey | None:
        return await self.session.get(InstallationKey, name)

    async def ensure(self, row: InstallationKey) -> InstallationKey:
        """`row`, or the one that is there under this name."""
        values = {"name": row.name, "id": row.id, "master_id": row.master_id, "wrapped": row.wrapped}
        await self.session.execute(insert(InstallationKey).values(values).on_conflict_do_nothing())
        return await self.session.get_one(InstallationKey, row.name)

    async def all_locked(self) -> Sequence[InstallationKey]:
        """Nobody makes a data key until this transaction ends (see `master_in_force`)."""
        statement = select(InstallationKey).order_by(InstallationKey.name).with_for_update()
        return (await self.session.execute(statement)).scalars().all()

    async def master_in_force(self) -> UUID | None:
        """The id of the master key that wraps data keys; it stays so until this transaction ends."""
        statement = select(InstallationKey.master_id).where(InstallationKey.name == PEPPER)
        return (await self.session.execute(statement.with_for_update(read=True))).scalar_one_or_none()


@dataclass(frozen=True, slots=True)
class DataKeys:
    """Data keys across organizations; takes a session of `system_work`."""

    session: AsyncSession

    async def ensure_active(self, row: OrganizationKey) -> None:
        """Inserts `row` unless its organization has an active key."""
        values = {"org_id": row.org_id, "id": row.id, "master_id": row.master_id, "wrapped": row.wrapped}
        await self.session.execute(insert(OrganizationKey).values(values).on_conflict_do_nothing())

    async def retire_all(self) -> None:
        """Waits for whoever seals with one right now."""
        statement = update(OrganizationKey).where(OrganizationKey.retired_at.is_(None))
        await self.session.execute(statement.values(retired_at=func.now()))

    async def retired(self) -> Sequence[OrganizationKey]:
        statement = select(OrganizationKey).where(OrganizationKey.retired_at.is_not(None))
        statement = statement.order_by(OrganizationKey.org_id, OrganizationKey.id)
        return (await self.session.execute(statement)).scalars().all()

    async def count_old(self, master_id: UUID) -> int:
        """How many keys are retired, or wrapped by another master key than this one."""
        old = (OrganizationKey.master_id != master_id) | OrganizationKey.retired_at.is_not(None)
        return (await self.session.execute(select(func.count()).where(old))).scalar_one()

    async def count_wrapped_by_others(self, master_ids: Collection[UUID]) -> int:
        """How many keys another master key than these wraps."""
        statement = select(func.count()).where(OrganizationKey.master_id.not_in(master_ids))
        return (await self.session.execute(statement)).scalar_one()

    async def wrapped_by_others(
        self, master_id: UUID, *, after: OrganizationKey | None, limit: int
    ) -> Sequence[OrganizationKey]:
        """The next keys, locked, that another master key than this one wraps."""
        place = tuple_(OrganizationKey.org_id, OrganizationKey.id)
        statement = select(OrganizationKey).where(OrganizationKey.master_id != master_id)
        if after is not None:
            statement = statement.where(place > (after.org_id, after.id))
        statement = statement.order_by(OrganizationKey.org_id, OrganizationKey.id).limit(limit)
        return (await self.session.execute(statement.with_for_update())).scalars().all()


class OrganizationKeys(Repository[OrganizationKey]):
    """Data keys of one organization."""

    model = OrganizationKey
    noun = "data key"
    by_project = False

    async def active(self) -> OrganizationKey | None:
        """It is not retired before this transaction ends."""
        statement = self.visible().where(OrganizationKey.retired_at.is_(None))
        return await self.one_or_none(statement.with_for_update(read=True))

    async def retire(self, key_id: UUID) -> None:
        statement = update(OrganizationKey).where(
            OrganizationKey.org_id == self.tenant.org_id, OrganizationKey.id == key_id
        )
        await self.session.execute(statement.values(retired_at=func.now()))

    async def delete_unused(self, key_id: UUID) -> bool:
        """Whether the key is gone; one that still seals something stays."""
        unused = [
            ~exists().where(sealed.org_id == OrganizationKey.org_id, sealed.key_id == OrganizationKey.id)
            for sealed in (Secret, ModelConnection)
        ]
        statement = delete(OrganizationKey).where(
            OrganizationKey.org_id == self.tenant.org_id, OrganizationKey.id == key_id, *unused
        )
        return bool((await self.session.execute(statement.returning(OrganizationKey.id))).all())


SealedRow = TypeVar("SealedRow", Secret, ModelConnection)


async def sealed_with(
    rows: Repository[SealedRow], key_id: UUID, *, after: UUID | None, limit: int
) -> list[SealedRow]:
    """The organization's next rows, locked, of whatever project, that are sealed with this key."""
    model = rows.model
    statement: Select[SealedRow] = select(model).where(
        model.org_id == rows.tenant.org_id, model.key_id == key_id
    )
    if after is not None:
        statement = statement.where(model.id > after)
    statement = statement.options(undefer(model.sealed)).order_by(model.id)
    return await rows.many(statement.limit(limit).with_for_update(of=model))


class Secrets(Repository[Secret]):
    """Secrets of one project."""

    model = Secret
    noun = "secret"
    sorts: ClassVar[Sorts] = {"created_at": Secret.created_at, "name": Secret.slug}

    async def names(self) -> frozenset[str]:
        """Names and ids: whatever a graph may say."""
        rows = await self.session.execute(self.visible().with_only_columns(Secret.id, Secret.slug))
        return frozenset(str(name) for row in rows for name in row)

    async def opened(self, reference: str) -> tuple[Secret, OrganizationKey]:
        """A secret with its sealed value and the key for it, as of one moment."""
        row_id = as_uuid(reference)
        named = Secret.slug == reference if row_id is None else Secret.id == row_id
        same_key = (OrganizationKey.org_id == Secret.org_id) & (OrganizationKey.id == Secret.key_id)
        statement = (
            self.visible()
            .where(named)
            .options(undefer(Secret.sealed))
            .join(OrganizationKey, same_key)
            .add_columns(OrganizationKey)
        )
        row = (await self.session.execute(statement)).one_or_none()
        if row is None:
            raise self.missing(reference)
        return row[0], row[1]
