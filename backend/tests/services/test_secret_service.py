"""Secrets at rest: sealed for their row, opened for whoever uses them, by name and project."""

from __future__ import annotations

import asyncio

import pytest
from pydantic import SecretStr
from sqlalchemy import select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import undefer

from app.core.errors import Conflict, Invalid, NotFound, Unavailable
from app.core.ids import new_id
from app.db.connection import open_engine
from app.db.postgres.models.secrets import OrganizationKey, Secret
from app.db.session import Tenant
from app.embedded import Services
from app.services.secret_service import SecretService, SecretUnreadable, hint
from tests.factories import Factory
from tests.services.vault import masters
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def make(world: World) -> Factory:
    return Factory(world.resources)


@pytest.fixture
def secrets(world: World) -> SecretService:
    return world.resources.secrets(world.tenant)


async def new_secret(secrets: SecretService, value: str = "island") -> str:
    name = f"s-{new_id().hex[-12:]}"
    await secrets.create(name, SecretStr(value))
    return name


async def stored(world: World, name: str) -> Secret:
    async with world.resources.database.unit_of_work(world.tenant) as session:
        statement = select(Secret).where(Secret.slug == name).options(undefer(Secret.sealed))
        return (await session.execute(statement)).scalar_one()


class TestReveal:
    @pytest.mark.parametrize("value", ["x", "ünïcödé ✓ 鍵", "-----BEGIN KEY-----\nMII\n", "a" * 60_000])
    async def test_gives_what_was_stored(self, secrets: SecretService, value: str) -> None:
        name = await new_secret(secrets, value)
        assert (await secrets.reveal(name)).get_secret_value() == value

    async def test_takes_an_id_too(self, secrets: SecretService) -> None:
        row = await secrets.get(await new_secret(secrets))
        assert (await secrets.reveal(str(row.id))).get_secret_value() == "island"

    async def test_gives_the_value_that_replaced_it(self, secrets: SecretService) -> None:
        name = await new_secret(secrets)
        await secrets.replace(name, SecretStr("mainland"))
        assert (await secrets.reveal(name)).get_secret_value() == "mainland"

    async def test_hides_it_from_whoever_prints_it(self, secrets: SecretService) -> None:
        assert "island" not in repr(await secrets.reveal(await new_secret(secrets)))

    async def test_of_another_project_is_not_found(
        self, secrets: SecretService, world: World, make: Factory
    ) -> None:
        name = await new_secret(secrets)
        stranger = world.resources.secrets((await make.member()).tenant)
        with pytest.raises(NotFound):
            await stranger.reveal(name)
        sibling = world.resources.secrets(Tenant(world.tenant.org_id, new_id()))
        with pytest.raises(NotFound):
            await sibling.reveal(name)

    async def test_with_another_master_key_says_so(self, secrets: SecretService, world: World) -> None:
        name = await new_secret(secrets)
        other = SecretService(world.resources.database, world.tenant, masters(7), 1000)
        with pytest.raises(Unavailable, match="The master key was changed"):
            await other.reveal(name)


class TestRow:
    async def test_does_not_hold_the_value(self, secrets: SecretService, world: World) -> None:
        row = await stored(world, await new_secret(secrets, "gold-on-the-island"))
        assert b"gold" not in row.sealed

    async def test_seals_the_same_value_differently_each_time(
        self, secrets: SecretService, world: World
    ) -> None:
        one, two = await new_secret(secrets), await new_secret(secrets)
        assert (await stored(world, one)).sealed != (await stored(world, two)).sealed

    @pytest.mark.parametrize("damage", ["swapped", "changed"])
    async def test_that_other_hands_changed_does_not_open(
        self, secrets: SecretService, world: World, damage: str
    ) -> None:
        name, other = await new_secret(secrets), await new_secret(secrets, "decoy")
        sealed = bytearray((await stored(world, other if damage == "swapped" else name)).sealed)
        if damage == "changed":
            sealed[-1] ^= 1
        async with world.resources.database.unit_of_work(world.tenant) as session:
            await session.execute(update(Secret).where(Secret.slug == name).values(sealed=bytes(sealed)))
        with pytest.raises(SecretUnreadable, match="set it again"):
            await secrets.reveal(name)

    async def test_of_another_organization_does_not_open_here(
        self, secrets: SecretService, world: World, make: Factory, services: Services
    ) -> None:
        theirs = world.resources.secrets((await make.member()).tenant)
        await theirs.create("loot", SecretStr("their gold"))
        name = await new_secret(secrets)
        moved = text(
            "UPDATE secrets SET sealed = theirs.sealed FROM secrets theirs "
            "WHERE secrets.slug = :name AND theirs.org_id = :org AND theirs.slug = 'loot'"
        )
        async with open_engine(services.migration_url) as engine, engine.begin() as connection:
            await connection.execute(moved, {"name": name, "org": theirs.tenant.org_id})
        with pytest.raises(SecretUnreadable):
            await secrets.reveal(name)

    async def test_is_not_read_where_nobody_asked_for_it(self, secrets: SecretService) -> None:
        row = await secrets.get(await new_secret(secrets))
        assert "sealed" not in row.__dict__


class TestCreate:
    async def test_twice_by_one_name_is_a_conflict_without_the_value(self, secrets: SecretService) -> None:
        name = await new_secret(secrets)
        with pytest.raises(Conflict) as raised:
            await secrets.create(name, SecretStr("mainland"))
        assert "mainland" not in raised.value.detail
        assert (await secrets.reveal(name)).get_secret_value() == "island"

    async def test_of_a_value_over_the_limit_says_the_limit_only(self, world: World) -> None:
        small = SecretService(world.resources.database, world.tenant, world.resources.masters, 10)
        with pytest.raises(Invalid, match="has 12 bytes; at most 10") as raised:
            await small.create("too-long", SecretStr("x1" * 6))
        assert "x1x1" not in raised.value.detail

    async def test_by_many_at_once_makes_one_data_key(self, world: World, make: Factory) -> None:
        tenant = (await make.member()).tenant
        secrets = world.resources.secrets(tenant)
        await asyncio.gather(*(secrets.create(f"s-{n}", SecretStr("gold")) for n in range(8)))
        async with world.resources.database.unit_of_work(tenant) as session:
            keys = (await session.execute(select(OrganizationKey.id))).all()
        assert len(keys) == 1

    async def test_leaves_nothing_with_the_system_role(self, secrets: SecretService, world: World) -> None:
        await new_secret(secrets)
        with pytest.raises(DBAPIError, match="permission denied"):
            async with world.resources.database.system_work() as session:
                await session.execute(select(Secret.id))


class TestHint:
    @pytest.mark.parametrize(("length", "shown"), [(1, None), (19, None), (20, "…stuv"), (60_000, "…stuv")])
    async def test_is_the_end_of_a_long_value(self, length: int, shown: str | None) -> None:
        assert hint(SecretStr(("x" * length + "stuv")[-length:])) == shown
