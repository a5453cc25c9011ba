"""What the installation keeps for itself, wrapped by the master key: the pepper of API keys.

It is unwrapped once, when a process starts, which also tells a wrong master key at once, and data keys that
a change of it has not reached. That the pepper is stored rather than derived is what keeps API keys valid
when the master key changes (docs/adr/0009).
"""

from __future__ import annotations

import os
from uuid import UUID

import structlog

from app.core.config import Settings
from app.core.envelope import (
    INSTALLATION,
    KEY_BYTES,
    Key,
    MasterKeys,
    UnknownKey,
    Unreadable,
    fingerprint,
    unwrap,
    wrap,
)
from app.core.errors import Misconfigured
from app.core.ids import new_id
from app.core.security import derive_key, master_key, master_key_file, master_keys, previous_master_key
from app.db.postgres.models.secrets import InstallationKey
from app.db.postgres.repositories.identity import Identities
from app.db.postgres.repositories.secrets import PEPPER, DataKeys, InstallationKeys
from app.db.session import Database
from app.services.sealing import FINISH_CHANGE

logger = structlog.get_logger(__name__)


async def api_key_pepper(database: Database, settings: Settings) -> bytes:
    """The key of API key digests; made when the installation first starts.

    Raises:
        Misconfigured: the master key is missing, or is not the one that secrets here are encrypted with.
    """
    masters = master_keys(settings)
    async with database.system_work() as session:
        keys = InstallationKeys(session)
        row = await keys.get(PEPPER)
        if row is None:
            secret = os.urandom(KEY_BYTES)
            if await Identities(session).has_keys():
                # Made before peppers were stored: those keys must stay valid.
                secret = derive_key(previous_master_key(settings) or master_key(settings), PEPPER)
            row = await keys.ensure(_wrapped(Key(new_id(), secret), masters.current))
    return _unwrapped(row, masters, settings)


async def check_master_key(database: Database, settings: Settings) -> None:
    """Raises `Misconfigured` like `api_key_pepper`, but makes nothing."""
    async with database.system_work() as session:
        row = await InstallationKeys(session).get(PEPPER)
    if row is not None:
        _unwrapped(row, master_keys(settings), settings)


async def master_in_force(database: Database) -> UUID | None:
    """The id of the master key that wraps new data keys; None before the first start."""
    async with database.system_work() as session:
        row = await InstallationKeys(session).get(PEPPER)
    return row.master_id if row else None


async def warn_of_lost_keys(database: Database, masters: MasterKeys) -> None:
    """Says in the log how many data keys need a master key that is not at hand: a change was not finished.

    No reason not to start: all other organizations can work.
    """
    if lost := await count_lost_keys(database, masters):
        logger.warning("data_keys_need_earlier_master_key", keys=lost, what_to_do=FINISH_CHANGE)


async def count_lost_keys(database: Database, masters: MasterKeys) -> int:
    """How many data keys are wrapped by a master key that is not at hand."""
    async with database.system_work() as session:
        return await DataKeys(session).count_wrapped_by_others(masters.ids)


def _unwrapped(row: InstallationKey, masters: MasterKeys, settings: Settings) -> bytes:
    try:
        return unwrap(masters, row.wrapped, key=row.id, org_id=INSTALLATION).secret
    except UnknownKey as error:
        raise Misconfigured(_wrong_key(settings, masters.current, row)) from error
    except Unreadable as error:
        raise Misconfigured(
            f"The stored key {PEPPER!r} of this installation is damaged ({error}): restore the table "
            "installation_keys from a backup."
        ) from error


def _wrapped(key: Key, master: Key) -> InstallationKey:
    return InstallationKey(
        name=PEPPER, id=key.id, master_id=master.id, wrapped=wrap(master, key, INSTALLATION)
    )


def _wrong_key(settings: Settings, given: Key, row: InstallationKey) -> str:
    file = master_key_file(settings)
    source = "ORRERY_MASTER_KEY" if settings.master_key is not None else f"the key in {str(file)!r}"
    return (
        f"The secrets of this installation are encrypted with another master key (fingerprint "
        f"{fingerprint(row.master_id)}) than {source} (fingerprint {fingerprint(given.id)}): give the right "
        "one, or, to change it, the old one as well in ORRERY_MASTER_KEY_PREVIOUS."
    )
