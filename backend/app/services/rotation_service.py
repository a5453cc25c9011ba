"""Rotation: another master key, and new data keys with everything sealed again, while the API works.

All its state is in the rows: a key names the master key that wraps it, a retired key waits to be replaced.
So it can be killed anywhere and is finished by running it again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from app.core.envelope import INSTALLATION, MasterKeys, Unreadable, unwrap, wrap
from app.core.errors import Misconfigured
from app.db.postgres.models.secrets import OrganizationKey, Secret
from app.db.postgres.repositories.secrets import DataKeys, InstallationKeys, OrganizationKeys, Secrets
from app.db.session import Database, Tenant
from app.services.sealing import data_key, make_data_key, open_from, seal_into

Progress = Callable[[str], None]


@dataclass(slots=True)
class Rotated:
    """What a rotation did, how many keys are old even so, and what did not open."""

    resumed: bool = False
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
            await self._retire()
            await self._replace_retired()
        async with self.database.system_work() as session:
            self.done.keys_left = await DataKeys(session).count_old(self.masters.current.id)
        return self.done

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
                        f"The master key with the fingerprint {row.master_id.hex[:8]} is in force, and is "
                        f"neither ORRERY_MASTER_KEY nor ORRERY_MASTER_KEY_PREVIOUS ({error})."
                    ) from error
                row.wrapped, row.master_id = wrap(current, key, INSTALLATION), current.id
                self.done.keys_wrapped += 1
        self.progress(f"master key {current.id.hex[:8]} is in force")

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
        current = self.masters.current
        try:
            key = data_key(self.masters, row)
        except Unreadable as error:
            self._note("data key", row.id, row.org_id, error)
            return False
        row.wrapped, row.master_id = wrap(current, key, row.org_id), current.id
        return True

    async def _retire(self) -> None:
        async with self.database.system_work() as session:
            keys = DataKeys(session)
            self.done.resumed = bool(await keys.retired())
            if not self.done.resumed:
                await keys.retire_all()

    async def _replace_retired(self) -> None:
        async with self.database.system_work() as session:
            retired = await DataKeys(session).retired()
        for number, (org_id, key_id) in enumerate(retired, 1):
            try:
                await self._replace(Tenant(org_id), key_id)
            except Unreadable as error:
                self._note("data key", key_id, org_id, error)
            self.progress(f"organization {number} of {len(retired)} done")

    async def _replace(self, tenant: Tenant, old_id: UUID) -> None:
        """Seals everything under the key `old_id` again, then deletes it."""
        await make_data_key(self.database, self.masters, tenant.org_id)
        after: UUID | None = None
        while True:
            async with self.database.unit_of_work(tenant) as session:
                rows = await Secrets(session, tenant).sealed_with(old_id, after=after, limit=self.batch)
                sealed = await self._seal_again(OrganizationKeys(session, tenant), rows)
            if not rows:
                break
            after = rows[-1].id
            self.done.secrets_sealed += sealed
            self.progress(f"{self.done.secrets_sealed} secrets sealed again")
        async with self.database.unit_of_work(tenant) as session:
            self.done.data_keys_replaced += await OrganizationKeys(session, tenant).delete_unused(old_id)

    async def _seal_again(self, keys: OrganizationKeys, rows: list[Secret]) -> int:
        if not rows:
            return 0
        old, new = data_key(self.masters, await keys.get(rows[0].key_id)), await keys.active()
        if new is None:
            return 0
        fresh, sealed = data_key(self.masters, new), 0
        for row in rows:
            try:
                seal_into(row, fresh, open_from(row, old))
                sealed += 1
            except Unreadable as error:
                self._note("secret", row.id, row.org_id, error)
        return sealed

    def _note(self, what: str, row_id: UUID, org_id: UUID, error: Unreadable) -> None:
        self.done.unreadable.append(f"{what} {row_id} of organization {org_id}: {error}")
