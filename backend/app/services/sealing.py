"""Values of secrets as they are stored: sealed with their organization's data key, made when first needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.envelope import Key, MasterKeys, Place, UnknownKey, new_key, seal, unseal, unwrap, wrap
from app.core.errors import Unavailable
from app.db.postgres.models.secrets import OrganizationKey, Secret
from app.db.postgres.repositories.secrets import DataKeys, InstallationKeys, OrganizationKeys
from app.db.session import Database, Tenant

T = TypeVar("T")
_TRIES = 5


def data_key(masters: MasterKeys, stored: OrganizationKey) -> Key:
    """A stored data key, unwrapped. Raises `UnknownKey` or `Unreadable` (see `core.envelope`)."""
    return unwrap(masters, stored.wrapped, key=stored.id, org_id=stored.org_id)


def seal_into(row: Secret, key: Key, plaintext: bytes) -> None:
    row.key_id, row.sealed = key.id, seal(key, plaintext, _place(row))


def open_from(row: Secret, key: Key) -> bytes:
    """Raises `UnknownKey` or `Unreadable` (see `core.envelope`)."""
    return unseal(key, row.sealed, _place(row))


def _place(row: Secret) -> Place:
    return Place(row.org_id, row.id, "secrets.value")


async def with_data_key(
    database: Database,
    masters: MasterKeys,
    tenant: Tenant,
    write: Callable[[AsyncSession, Key], Awaitable[T]],
) -> T:
    """`write` in one transaction with the active data key, which no rotation can retire meanwhile."""
    for _ in range(_TRIES):
        async with database.unit_of_work(tenant) as session:
            stored = await OrganizationKeys(session, tenant).active()
            if stored is not None:
                return await write(session, known(masters, stored))
        await make_data_key(database, masters, tenant.org_id)
    raise Unavailable("The keys of the organization are being rotated; try again.")


def known(masters: MasterKeys, stored: OrganizationKey) -> Key:
    """`data_key`; `Unavailable` where this process was started before the master key was changed."""
    try:
        return data_key(masters, stored)
    except UnknownKey as error:
        raise _outdated() from error


async def make_data_key(database: Database, masters: MasterKeys, org_id: UUID) -> None:
    """Gives the organization an active data key if it has none, wrapped by the master key in force.

    Which one that is the installation's own key says; a change of the master key waits for us, and we for it.
    """
    async with database.system_work() as session:
        in_force = await InstallationKeys(session).master_in_force()
        try:
            master = masters.by_id(in_force) if in_force else masters.current
        except UnknownKey as error:
            raise _outdated() from error
        key = new_key()
        row = OrganizationKey(
            org_id=org_id, id=key.id, master_id=master.id, wrapped=wrap(master, key, org_id)
        )
        await DataKeys(session).ensure_active(row)


def _outdated() -> Unavailable:
    return Unavailable(
        "The master key was changed after this process had started: start it again with the new "
        "ORRERY_MASTER_KEY."
    )
