"""Rotation: nothing is lost wherever it dies, nobody is disturbed, nothing is left under an old key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from uuid import UUID

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.core.errors import Misconfigured, Unavailable
from app.core.ids import new_id
from app.core.paging import PageRequest
from app.db.postgres.models.registry import ModelConnection
from app.db.postgres.models.secrets import OrganizationKey
from app.db.session import Tenant
from app.embedded import Services
from app.services.rotation_service import Rotated
from app.services.sealing import data_key, open_from
from tests.services.vault import Killed, Vault, masters, open_vault

pytestmark = pytest.mark.asyncio(loop_scope="session")
COUNTS = (3, 1)
ALL = sum(COUNTS)
LONGEST = 60


@dataclass(slots=True)
class Filled:
    """Two organizations with secrets, whose values are `<name> of <organization>`."""

    vault: Vault
    tenants: list[Tenant]

    async def all_open(self, current: int, previous: int | None = None) -> bool:
        """Whether every value opens for a process with these master keys."""
        for tenant in self.tenants:
            secrets = self.vault.secrets(tenant, masters(current, previous))
            for row in (await secrets.page(PageRequest(100))).items:
                value = (await secrets.reveal(row.slug)).get_secret_value()
                assert value == f"{row.slug} of {tenant.org_id}"
        return True

    async def keys(self) -> set[object]:
        return set(await self.vault.as_owner("SELECT id, wrapped FROM organization_keys"))

    async def sealed(self) -> dict[UUID, bytes]:
        return dict(await self.vault.as_owner("SELECT id, sealed FROM secrets"))

    async def damage_secret(self) -> UUID:
        """One of the first organization."""
        ((row_id,),) = await self.vault.as_owner(
            "UPDATE secrets SET sealed = overlay(sealed placing '\\x0000' from 30) "
            "WHERE id = (SELECT min(id::text)::uuid FROM secrets WHERE org_id = :org) RETURNING id",
            org=self.tenants[0].org_id,
        )
        assert isinstance(row_id, UUID)
        return row_id

    async def damage_active_key(self, tenant: Tenant) -> None:
        await self.vault.as_owner(
            "UPDATE organization_keys SET wrapped = overlay(wrapped placing '\\x0000' from 40) "
            "WHERE org_id = :org AND retired_at IS NULL",
            org=tenant.org_id,
        )


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def shared(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Vault]:
    async with open_vault(services, tmp_path_factory.mktemp("vault")) as vault:
        yield vault


@pytest_asyncio.fixture(loop_scope="session")
async def filled(shared: Vault) -> Filled:
    await shared.as_owner("TRUNCATE installation_keys, organizations, users CASCADE")
    shared.in_force = 0
    await shared.open()
    tenants = [await shared.tenant(), await shared.tenant()]
    for tenant, count in zip(tenants, COUNTS, strict=True):
        for number in range(count):
            await shared.secrets(tenant).create(f"s-{number}", SecretStr(f"s-{number} of {tenant.org_id}"))
    return Filled(shared, tenants)


class TestRotate:
    async def test_replaces_every_key_and_seals_everything_again(self, filled: Filled) -> None:
        before = await filled.keys()
        done = await filled.vault.rotate(masters(1, previous=0))
        assert done == Rotated(master_changed=True, keys_wrapped=3, data_keys_replaced=2, secrets_sealed=ALL)
        assert not before & await filled.keys()
        assert await filled.all_open(1)

    async def test_seals_the_keys_of_model_connections_again(self, filled: Filled) -> None:
        tenant, vault = filled.tenants[0], filled.vault
        made = await vault.connections(tenant).create(
            "vendor", provider="p", base_url="https://v.example", api_key=SecretStr("sk-vendor")
        )
        done = await vault.rotate(masters(1, previous=0))
        assert (done.secrets_sealed, done.data_keys_replaced, done.keys_left) == (ALL + 1, 2, 0)
        async with vault.database.unit_of_work(tenant) as session:
            statement = select(ModelConnection, OrganizationKey).options(undefer(ModelConnection.sealed))
            statement = statement.where(
                ModelConnection.org_id == tenant.org_id,
                OrganizationKey.org_id == tenant.org_id,
                OrganizationKey.id == ModelConnection.key_id,
            )
            row, stored = (await session.execute(statement)).one()
        assert (row.id, row.key_id != made.key_id) == (made.id, True)
        assert open_from(row, data_key(masters(1), stored)) == b"sk-vendor"

    async def test_leaves_nothing_to_the_old_master_key(self, filled: Filled) -> None:
        await filled.vault.rotate(masters(1, previous=0))
        with pytest.raises(Unavailable):
            await filled.all_open(0)

    async def test_of_the_master_key_alone_leaves_the_data_keys(self, filled: Filled) -> None:
        before = await filled.vault.as_owner("SELECT sealed FROM secrets ORDER BY id")
        done = await filled.vault.rotate(masters(1, previous=0), data_keys=False)
        assert (done.keys_wrapped, done.data_keys_replaced, done.keys_left) == (3, 0, 0)
        assert await filled.vault.as_owner("SELECT sealed FROM secrets ORDER BY id") == before
        assert await filled.all_open(1)

    async def test_with_the_same_master_key_replaces_the_data_keys(self, filled: Filled) -> None:
        done = await filled.vault.rotate()
        assert (done.keys_wrapped, done.data_keys_replaced, done.keys_left) == (0, 2, 0)
        assert await filled.all_open(0)

    async def test_says_nothing_of_its_own_in_the_metadata(self, filled: Filled) -> None:
        dates = "SELECT updated_at, value_changed_at, hint FROM secrets ORDER BY id"
        before = await filled.vault.as_owner(dates)
        await filled.vault.rotate()
        assert await filled.vault.as_owner(dates) == before

    async def test_without_the_master_key_in_force_changes_nothing(self, filled: Filled) -> None:
        before = await filled.keys()
        with pytest.raises(Misconfigured, match="neither ORRERY_MASTER_KEY nor ORRERY_MASTER_KEY_PREVIOUS"):
            await filled.vault.rotate(masters(2, previous=1))
        assert await filled.keys() == before

    async def test_before_the_first_start_says_so(self, filled: Filled) -> None:
        await filled.vault.as_owner("DELETE FROM installation_keys")
        with pytest.raises(Misconfigured, match="start `orrery serve` once"):
            await filled.vault.rotate()


class TestLeft:
    async def test_names_a_value_that_does_not_open_and_keeps_its_key(self, filled: Filled) -> None:
        row_id = await filled.damage_secret()
        done = await filled.vault.rotate(masters(1, previous=0))
        assert (done.keys_left, done.secrets_sealed) == (1, ALL - 1)
        (line,) = done.unreadable
        assert str(row_id) in line

    async def test_names_a_data_key_of_a_master_key_that_is_gone(self, filled: Filled) -> None:
        org = filled.tenants[0].org_id
        await filled.vault.as_owner(
            "UPDATE organization_keys SET wrapped = overlay(wrapped placing '\\xff' from 3), "
            "master_id = gen_random_uuid() WHERE org_id = :org",
            org=org,
        )
        done = await filled.vault.rotate(masters(1, previous=0))
        assert done.keys_left == 1
        (line,) = done.unreadable
        assert str(org) in line
        assert "ORRERY_MASTER_KEY_PREVIOUS" in line

    async def test_counts_what_a_rotation_of_the_master_key_alone_does_not_finish(
        self, filled: Filled
    ) -> None:
        await filled.vault.as_owner("UPDATE organization_keys SET retired_at = now()")
        assert (await filled.vault.rotate(data_keys=False)).keys_left == 2


class TestUnreadable:
    async def test_secret_keeps_no_other_secret_and_no_other_key_from_any_rotation(
        self, filled: Filled
    ) -> None:
        broken = await filled.damage_secret()
        await filled.vault.rotate()
        for _ in range(2):
            before = await filled.sealed()
            done = await filled.vault.rotate()
            after = await filled.sealed()
            assert (done.resumed, done.data_keys_replaced, done.secrets_sealed) == (False, 2, ALL - 1)
            assert {row_id for row_id in before if before[row_id] == after[row_id]} == {broken}
            assert (done.keys_left, len(done.unreadable)) == (1, 1)

    async def test_secret_that_was_set_again_is_left_no_more(self, filled: Filled) -> None:
        broken = await filled.damage_secret()
        await filled.vault.rotate()
        one, _ = filled.tenants
        ((name,),) = await filled.vault.as_owner("SELECT slug FROM secrets WHERE id = :id", id=broken)
        await filled.vault.secrets(one).replace(name, SecretStr(f"{name} of {one.org_id}"))
        done = await filled.vault.rotate()
        assert (done.keys_left, done.unreadable, done.secrets_sealed) == (0, [], ALL)
        assert await filled.all_open(0)

    async def test_data_key_is_replaced_for_new_secrets_and_kept_for_what_it_seals(
        self, filled: Filled
    ) -> None:
        one, other = filled.tenants
        await filled.damage_active_key(one)
        with pytest.raises(Unavailable, match="orrery secrets rotate"):
            await filled.vault.secrets(one).create("new", SecretStr("gold"))
        for _ in range(2):
            done = await filled.vault.rotate()
            assert (done.keys_left, done.secrets_sealed >= COUNTS[1]) == (1, True)
            (line,) = done.unreadable
            assert str(one.org_id) in line
        secrets = filled.vault.secrets(one)
        await secrets.create("new", SecretStr("gold"))
        assert (await secrets.reveal("new")).get_secret_value() == "gold"
        assert (await filled.vault.secrets(other).reveal("s-0")).get_secret_value()

    async def test_data_key_that_seals_nothing_is_deleted(self, filled: Filled) -> None:
        one, _ = filled.tenants
        for number in range(COUNTS[0]):
            await filled.vault.secrets(one).delete(f"s-{number}")
        await filled.damage_active_key(one)
        done = await filled.vault.rotate()
        assert (done.keys_left, done.unreadable, done.data_keys_replaced) == (0, [], 2)

    async def test_new_data_key_does_not_hold_up_a_rotation_that_was_begun(self, filled: Filled) -> None:
        one, _ = filled.tenants
        await filled.vault.as_owner("UPDATE organization_keys SET retired_at = now()")
        await filled.vault.secrets(one).create("last", SecretStr("gold"))
        await filled.damage_active_key(one)
        done = await filled.vault.rotate()
        assert (done.resumed, done.secrets_sealed) == (True, ALL)
        (line,) = done.unreadable
        assert "data key" in line

    async def test_keys_of_a_change_that_was_killed_open_once_their_master_key_is_given(
        self, filled: Filled
    ) -> None:
        await filled.vault.change_halfway()
        done = await filled.vault.rotate(masters(1))
        assert (done.keys_left, len(done.unreadable)) == (2, 2)
        done = await filled.vault.rotate(masters(1, previous=0))
        assert (done.keys_left, done.unreadable) == (0, [])
        assert await filled.all_open(1)


class TestKilled:
    async def test_in_any_transaction_loses_nothing_and_is_finished_later(self, filled: Filled) -> None:
        """Each round dies one transaction later than the one before, until one gets to its end."""
        for number in range(1, LONGEST):
            keys = masters(number, previous=number - 1)
            try:
                await filled.vault.rotate(keys, database=filled.vault.mortal(number))
            except Killed:
                assert await filled.all_open(number, previous=number - 1)
            else:
                break
            done = await filled.vault.rotate(keys)
            assert (done.keys_left, done.unreadable) == (0, [])
        assert await filled.all_open(number)
        assert 10 < number < LONGEST - 1

    async def test_goes_on_where_it_was(self, filled: Filled) -> None:
        await filled.vault.as_owner("UPDATE organization_keys SET retired_at = now()")
        one, _ = filled.tenants
        await filled.vault.secrets(one).replace("s-0", SecretStr(f"s-0 of {one.org_id}"))
        done = await filled.vault.rotate()
        assert (done.resumed, done.secrets_sealed, done.data_keys_replaced) == (True, ALL - 1, 2)


class TestMeanwhile:
    async def test_readers_and_writers_with_both_keys_notice_nothing(self, filled: Filled) -> None:
        """Half of them were started for the old master key and half for the new one."""
        stop = asyncio.Event()

        async def use(tenant: Tenant, *keys: int) -> int:
            secrets, rounds = filled.vault.secrets(tenant, masters(*keys)), 0
            while not stop.is_set():
                name = f"n-{new_id().hex[-12:]}"
                await secrets.create(name, SecretStr(f"{name} of {tenant.org_id}"))
                await secrets.replace("s-0", SecretStr(f"s-0 of {tenant.org_id}"))
                assert (await secrets.reveal(name)).get_secret_value() == f"{name} of {tenant.org_id}"
                await secrets.delete(name)
                rounds += 1
            return rounds

        keys = [(0, 1), (1, 0)]
        users = [asyncio.create_task(use(tenant, *pair)) for tenant in filled.tenants for pair in keys]
        for current, previous in [(1, 0), (0, 1), (1, 0)]:
            done = await filled.vault.rotate(masters(current, previous))
            assert (done.keys_left, done.unreadable) == (0, [])
        stop.set()
        assert all(rounds > 0 for rounds in await asyncio.gather(*users))
        assert await filled.all_open(1)

    async def test_new_data_keys_are_wrapped_by_the_key_in_force(self, filled: Filled) -> None:
        """So a process that does not know the new master key yet can read what one that does has written."""
        fresh = await filled.vault.tenant()
        await filled.vault.secrets(fresh, masters(1, previous=0)).create("early", SecretStr("gold"))
        assert (await filled.vault.secrets(fresh, masters(0)).reveal("early")).get_secret_value() == "gold"

    async def test_an_unfinished_change_says_which_key_to_give_to_whom_it_did_not_reach(
        self, filled: Filled
    ) -> None:
        await filled.vault.change_halfway()
        behind, fresh = filled.tenants[0], await filled.vault.tenant()
        remedy = r"give the old one as ORRERY_MASTER_KEY_PREVIOUS and run `orrery secrets rotate`"
        with pytest.raises(Unavailable, match=remedy):
            await filled.vault.secrets(behind, masters(1)).reveal("s-0")
        with pytest.raises(Unavailable, match=remedy):
            await filled.vault.secrets(behind, masters(1)).create("late", SecretStr("gold"))
        await filled.vault.secrets(fresh, masters(1)).create("new", SecretStr("gold"))
        await filled.vault.rotate(masters(1, previous=0))
        assert await filled.vault.secrets(behind, masters(1)).reveal("s-0")

    async def test_a_process_of_before_the_change_is_told_to_start_again(self, filled: Filled) -> None:
        await filled.vault.rotate(masters(1, previous=0))
        with pytest.raises(Unavailable, match="start it again with the new ORRERY_MASTER_KEY"):
            await filled.vault.secrets(filled.tenants[0], masters(0)).reveal("s-0")

    async def test_an_outdated_process_can_make_no_data_key(self, filled: Filled) -> None:
        await filled.vault.rotate(masters(1, previous=0))
        fresh = await filled.vault.tenant()
        with pytest.raises(Unavailable, match="start it again"):
            await filled.vault.secrets(fresh, masters(0)).create("late", SecretStr("gold"))
