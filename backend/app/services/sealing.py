"""Values of secrets as they are stored: sealed with their organization's data key, made when first needed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias, TypeVar
from uuid import UUID

from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.envelope import (
    Key,
    MasterKeys,
    Place,
    UnknownKey,
    Unreadable,
    fingerprint,
    new_key,
    seal,
    unseal,
    unwrap,
    wrap,
)
from app.core.errors import Unavailable
from app.db.postgres.models.registry import ModelConnection
from app.db.postgres.models.secrets import OrganizationKey, Secret
from app.db.postgres.repositories.secrets import DataKeys, InstallationKeys, OrganizationKeys
from app.db.session import Database, Tenant

FINISH_CHANGE: Final = "give the old one as ORRERY_MASTER_KEY_PREVIOUS and run `orrery secrets rotate`"
"""What to do about keys that an earlier master key wraps, which is not at hand."""

T = TypeVar("T")
Sealed: TypeAlias = Secret | ModelConnection
"""Rows with a value that is sealed."""
_TRIES = 5
_FIELDS: Final = {Secret: "secrets.value", ModelConnection: "model_connections.api_key"}
"""The place of each value, which it is bound to by its seal: never renamed."""


def data_key(masters: MasterKeys, stored: OrganizationKey) -> Key:
    """A stored data key, unwrapped. Raises `UnknownKey` or `Unreadable` (see `core.envelope`)."""
    return unwrap(masters, stored.wrapped, key=stored.id, org_id=stored.org_id)


def seal_into(row: Sealed, key: Key, plaintext: bytes) -> None:
    row.key_id, row.sealed = key.id, seal(key, plaintext, _place(row))


def open_from(row: Sealed, key: Key) -> bytes:
    """Raises `UnknownKey` or `Unreadable` (see `core.envelope`)."""
    return unseal(key, row.sealed or b"", _place(row))


def _place(row: Sealed) -> Place:
    return Place(row.org_id, row.id, _FIELDS[type(row)])


_HINT = 4
_HINT_FROM = 20


def hint(value: SecretStr) -> str | None:
    """The last characters of a long value, by which its owner recognises it; nothing of a short one."""
    text = value.get_secret_value()
    return f"…{text[-_HINT:]}" if len(text) >= _HINT_FROM else None


async def with_data_key(
    database: Database,
    masters: MasterKeys,
    tenant: Tenant,
    write: Callable[[AsyncSession, Key], Awaitable[T]],
) -> T:
    """`write` in one transaction with the active data key, which no rotation can retire meanwhile.

    Raises `Unavailable` where that key does not open; says what to do.
    """
    for _ in range(_TRIES):
        async with database.unit_of_work(tenant) as session:
            stored = await OrganizationKeys(session, tenant).active()
            if stored is not None and stored.master_id in masters.ids:
                return await write(session, _opened_for_writing(masters, stored))
        if stored is not None:
            raise await _not_at_hand(database, masters, stored)
        await make_data_key(database, masters, tenant.org_id)
    raise Unavailable("The keys of the organization are being rotated; try again.")


def _opened_for_writing(masters: MasterKeys, stored: OrganizationKey) -> Key:
    try:
        return data_key(masters, stored)
    except Unreadable as error:
        raise Unavailable(
            f"The organization's data key cannot be used ({error}): the operator can give it a new one "
            "with `orrery secrets rotate`."
        ) from error


async def opened(database: Database, masters: MasterKeys, stored: OrganizationKey) -> Key:
    """`data_key`, outside of transactions.

    Raises:
        Unavailable: its master key is not at hand; says what to do.
        Unreadable: it was changed by other hands.
    """
    if stored.master_id not in masters.ids:
        raise await _not_at_hand(database, masters, stored)
    return data_key(masters, stored)


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


async def _not_at_hand(database: Database, masters: MasterKeys, stored: OrganizationKey) -> Unavailable:
    """A process that knows the master key in force is not the one that is behind: the key is."""
    async with database.system_work() as session:
        in_force = await InstallationKeys(session).master_in_force()
    if in_force not in masters.ids:
        return _outdated()
    return Unavailable(
        "The master key was changed, but not yet for this organization, whose secrets need the earlier one "
        f"(fingerprint {fingerprint(stored.master_id)}): {FINISH_CHANGE}."
    )


def _outdated() -> Unavailable:
    return Unavailable(
        "The master key was changed after this process had started: start it again with the new "
        "ORRERY_MASTER_KEY."
    )
