"""Rotation: another master key, and new data keys with everything sealed again, while the API works.

All its state is in the rows: a key names the master key that wraps it, a retired key waits to be replaced.
So it can be killed anywhere and is finished by running it again. What does not open stays as it is, and is
named; everything else is rotated without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.core.envelope import INSTALLATION, Key, MasterKeys, Unreadable, fingerprint, unwrap, wrap
from app.core.errors import Misconfigured
from app.db.postgres.models.secrets import OrganizationKey, Secret
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.registry import ModelConnections
from app.db.postgres.repositories.secrets import (
    DataKeys,
    InstallationKeys,
    OrganizationKeys,
    Secrets,
    sealed_with,
)
from app.db.session import Database, Tenant
from app.services.sealing import FINISH_CHANGE, Sealed, data_key, make_data_key, open_from, seal_into

Progress = Callable[[str], None]


@dataclass(slots=True)
class Rotated:
    """What a rotation did, how many keys are old even so, and what did not open, each with what to do."""

    resumed: bool = False
    master_changed: bool = False
    keys_wrapped: int = 0
    data_keys_replaced: int = 0
    secrets_sealed: int = 0
    keys_left: int = 0
    unreadable: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RotationService:
    """Works through all organizations in transactions of at most `batch` rows."""

    database: Database
    masters: MasterKeys
    batch: int
    progress: Progress
    done: Rotated = field(default_factory=Rotated)
    left: dict[UUID, str] = field(default_factory=dict)

    async def rotate(self, *, data_keys: bool = True) -> Rotated:
        """Puts the current master key in force; with `data_keys` also replaces every data key.

        An unfinished replacement is finished, not begun anew. Processes that know the previous and the
        current master key may read and write meanwhile.

        Raises:
            Misconfigured: nothing is encrypted here yet, or with a master key that is not at hand.
        """
        await self._take_over()
        await self._wrap_data_keys()
        if data_keys:
            await self._replace_data_keys()
        async with self.database.system_work() as session:
            self.done.keys_left = await DataKeys(session).count_old(self.masters.current.id)
        self.done.unreadable = list(self.left.values())
        return self.done

    async def is_finished(self) -> bool:
        """Whether the current master key is in force, wraps every data key, and none waits to be replaced."""
        async with self.database.system_work() as session:
            in_force = await InstallationKeys(session).master_in_force()
            return in_force == self.masters.current.id and not await DataKeys(session).count_old(in_force)

    async def _take_over(self) -> None:
        """From its commit on, new data keys are wrapped by the current master key."""
        current = self.masters.current
        async with self.database.system_work() as session:
            rows = await InstallationKeys(session).all_locked()
            if not rows:
                raise Misconfigured("Nothing is encrypted here yet: start `orrery serve` once.")
            for row in rows:
                if row.master_id == current.id:
                    continue
                try:
                    key = unwrap(self.masters, row.wrapped, key=row.id, org_id=INSTALLATION)
                except Unreadable as error:
                    raise Misconfigured(
                        f"The master key with the fingerprint {fingerprint(row.master_id)} is in force, and "
                        f"is neither ORRERY_MASTER_KEY nor ORRERY_MASTER_KEY_PREVIOUS ({error})."
                    ) from error
                row.wrapped, row.master_id = wrap(current, key, INSTALLATION), current.id
                self.done.keys_wrapped += 1
                self.done.master_changed = True
        self.progress(f"master key {fingerprint(current.id)} is in force")

    async def _wrap_data_keys(self) -> None:
        after: OrganizationKey | None = None
        while True:
            async with self.database.system_work() as session:
                rows = await DataKeys(session).wrapped_by_others(
                    self.masters.current.id, after=after, limit=self.batch
                )
                wrapped = sum(self._wrap(row) for row in rows)
            if not rows:
                return
            after = rows[-1]
            self.done.keys_wrapped += wrapped
            self.progress(f"{self.done.keys_wrapped} keys wrapped by the new master key")

    def _wrap(self, row: OrganizationKey) -> bool:
        current, key = self.masters.current, self._opened(row)
        if key is None:
            return False
        row.wrapped, row.master_id = wrap(current, key, row.org_id), current.id
        return True

    async def _replace_data_keys(self) -> None:
        """Finishes what was begun before. Where no secret waited for that, replaces every key there is.

        So a key that stays retired, because something under it does not open, holds up no later rotation.
        """
        await self._replace_retired()
        self.done.resumed = self.done.secrets_sealed > 0
        if not self.done.resumed:
            async with self.database.system_work() as session:
                await DataKeys(session).retire_all()
            await self._replace_retired()

    async def _replace_retired(self) -> None:
        async with self.database.system_work() as session:
            retired = await DataKeys(session).retired()
        for number, row in enumerate(retired, 1):
            await self._replace(Tenant(row.org_id), row)
            self.progress(f"data key {number} of {len(retired)} done")

    async def _replace(self, tenant: Tenant, row: OrganizationKey) -> None:
        """Seals again what opens under a retired key; deletes the key if nothing is left under it."""
        await self._make_active(tenant)
        if (old := self._opened(row)) is not None:
            await self._seal_all_again(tenant, old)
        async with self.database.unit_of_work(tenant) as session:
            self.done.data_keys_replaced += await self._delete_unused(OrganizationKeys(session, tenant), row)

    async def _make_active(self, tenant: Tenant) -> None:
        """Gives the organization an active data key that opens, also in place of one that does not."""
        await make_data_key(self.database, self.masters, tenant.org_id)
        async with self.database.unit_of_work(tenant) as session:
            keys = OrganizationKeys(session, tenant)
            active = await keys.active()
            if active is None or self._opened(active):
                return
            if not await self._delete_unused(keys, active):
                await keys.retire(active.id)
        await make_data_key(self.database, self.masters, tenant.org_id)

    async def _seal_all_again(self, tenant: Tenant, old: Key) -> None:
        for kind in (Secrets, ModelConnections):
            await self._seal_kind_again(kind, tenant, old)

    async def _seal_kind_again(self, kind: type[Repository[Any]], tenant: Tenant, old: Key) -> None:
        after: UUID | None = None
        while True:
            async with self.database.unit_of_work(tenant) as session:
                rows: Sequence[Sealed] = await sealed_with(
                    kind(session, tenant), old.id, after=after, limit=self.batch
                )
                sealed = await self._seal_again(OrganizationKeys(session, tenant), rows, old)
            if not rows:
                return
            after = rows[-1].id
            self.done.secrets_sealed += sealed
            self.progress(f"{self.done.secrets_sealed} secrets sealed again")

    async def _seal_again(self, keys: OrganizationKeys, rows: Sequence[Sealed], old: Key) -> int:
        active = await keys.active() if rows else None
        new = self._opened(active) if active else None
        if new is None:
            return 0
        sealed = 0
        for row in rows:
            try:
                seal_into(row, new, open_from(row, old))
                sealed += 1
            except Unreadable as error:
                what = "secret" if isinstance(row, Secret) else "key of the model connection"
                self._note(what, row, f"{error}; set its value again, or delete it")
        return sealed

    async def _delete_unused(self, keys: OrganizationKeys, row: OrganizationKey) -> bool:
        deleted = await keys.delete_unused(row.id)
        if deleted:
            self.left.pop(row.id, None)
        return deleted

    def _opened(self, row: OrganizationKey) -> Key | None:
        """The data key; where it does not open, None, and it is noted."""
        try:
            return data_key(self.masters, row)
        except Unreadable as error:
            why = f"{error}; restore the row from a backup, or set the secrets under it again"
            if row.master_id not in self.masters.ids:
                why = f"wrapped by an earlier master key ({fingerprint(row.master_id)}); {FINISH_CHANGE}"
        self._note("data key", row, why)
        return None

    def _note(self, what: str, row: OrganizationKey | Sealed, why: str) -> None:
        self.left[row.id] = f"{what} {row.id} of organization {row.org_id}: {why}"
