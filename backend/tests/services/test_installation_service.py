"""The pepper of API keys: stored under the master key, and what a wrong master key is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from pydantic import SecretStr
from structlog.testing import capture_logs

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.core.ids import new_id
from app.core.security import api_key_digest, derive_key
from app.db.postgres.models.identity import ApiKey, Membership, User
from app.db.postgres.repositories.identity import Identities
from app.embedded import Services
from app.services.auth_service import AuthService
from app.services.installation_service import api_key_pepper, warn_of_lost_keys
from tests.fixtures import http_client, running_server
from tests.services.vault import Vault, master, masters, open_vault

pytestmark = pytest.mark.asyncio(loop_scope="session")
KEY = "an-api-key-that-was-made-long-ago-0123456789"


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def shared(services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Vault]:
    async with open_vault(services, tmp_path_factory.mktemp("vault")) as vault:
        yield vault


@pytest_asyncio.fixture(loop_scope="session")
async def vault(shared: Vault) -> Vault:
    """As a database is after its migration."""
    await shared.as_owner("TRUNCATE installation_keys, organizations, users CASCADE")
    shared.in_force = 0
    return shared


async def plant_key(vault: Vault, pepper: bytes) -> None:
    tenant = await vault.tenant()
    user = User(id=new_id(), email=f"{new_id().hex}@example.test")
    member = Membership(org_id=tenant.org_id, id=new_id(), user_id=user.id)
    row = ApiKey(
        org_id=tenant.org_id,
        id=new_id(),
        project_id=tenant.project_id,
        user_id=user.id,
        name="old",
        hint="an-a…6789",
        digest=api_key_digest(KEY, pepper),
    )
    async with vault.database.system_work() as session:
        await Identities(session).add(user, member, row)


class TestPepper:
    async def test_is_random_where_no_key_was_made_yet(self, vault: Vault) -> None:
        assert len(await vault.open()) == 32
        assert await vault.open() != derive_key(master(0).encode(), "api-keys")

    async def test_stays_the_same(self, vault: Vault) -> None:
        assert await vault.open() == await vault.open()

    async def test_is_one_for_all_who_start_at_the_same_moment(self, vault: Vault) -> None:
        assert len(set(await asyncio.gather(*(vault.open() for _ in range(6))))) == 1

    async def test_keeps_keys_valid_that_were_made_before_it_was_stored(self, vault: Vault) -> None:
        await plant_key(vault, derive_key(master(0).encode(), "api-keys"))
        assert await AuthService(vault.database, await vault.open()).authenticate(KEY)

    async def test_keeps_them_valid_where_the_master_key_changes_at_once(self, vault: Vault) -> None:
        await plant_key(vault, derive_key(master(0).encode(), "api-keys"))
        settings = vault.settings(master_key=1, master_key_previous=0)
        pepper = await api_key_pepper(vault.database, settings)
        assert await AuthService(vault.database, pepper).authenticate(KEY)

    async def test_survives_a_change_of_the_master_key(self, vault: Vault) -> None:
        before = await vault.open()
        await vault.rotate(masters(1, previous=0))
        assert await api_key_pepper(vault.database, vault.settings(master_key=1)) == before

    async def test_is_not_stored_as_it_is(self, vault: Vault) -> None:
        pepper = await vault.open()
        ((wrapped,),) = await vault.as_owner("SELECT wrapped FROM installation_keys")
        assert pepper not in bytes(wrapped)


class TestMasterKey:
    async def test_that_is_another_is_told_in_one_sentence(self, vault: Vault) -> None:
        await vault.open()
        with pytest.raises(Misconfigured) as raised:
            await api_key_pepper(vault.database, vault.settings(master_key=1))
        assert "another master key" in raised.value.detail
        assert "than ORRERY_MASTER_KEY (fingerprint" in raised.value.detail
        assert "ORRERY_MASTER_KEY_PREVIOUS" in raised.value.detail
        assert "\n" not in raised.value.detail
        assert master(1) not in raised.value.detail

    async def test_that_was_generated_anew_is_named_by_its_file(self, vault: Vault) -> None:
        await vault.open()
        lost = vault.settings().model_copy(update={"database_url": None})
        with pytest.raises(Misconfigured, match=r"than the key in '.*master\.key'"):
            await api_key_pepper(vault.database, lost)

    async def test_that_is_missing_is_asked_for(self, vault: Vault) -> None:
        with pytest.raises(Misconfigured, match="ORRERY_MASTER_KEY is not set"):
            await api_key_pepper(vault.database, vault.settings())

    async def test_of_before_opens_too(self, vault: Vault) -> None:
        pepper = await vault.open()
        both = vault.settings(master_key=1, master_key_previous=0)
        assert await api_key_pepper(vault.database, both) == pepper

    async def test_damage_is_not_taken_for_a_wrong_key(self, vault: Vault) -> None:
        await vault.open()
        await vault.as_owner("UPDATE installation_keys SET wrapped = set_byte(wrapped, 40, 255)")
        await vault.as_owner("UPDATE installation_keys SET wrapped = set_byte(wrapped, 41, 0)")
        with pytest.raises(Misconfigured, match="damaged"):
            await vault.open()


class TestLostKeys:
    async def fill(self, vault: Vault) -> None:
        """An installation of two organizations with secrets."""
        await vault.open()
        for _ in range(2):
            await vault.secrets(await vault.tenant()).create("key", SecretStr("gold"))

    async def test_of_an_unfinished_change_are_counted_in_the_log(self, vault: Vault) -> None:
        await self.fill(vault)
        await vault.change_halfway()
        with capture_logs() as logs:
            await warn_of_lost_keys(vault.database, masters(1))
        (line,) = logs
        assert (line["log_level"], line["keys"]) == ("warning", 2)
        assert "ORRERY_MASTER_KEY_PREVIOUS and run `orrery secrets rotate`" in line["what_to_do"]

    async def test_are_none_where_both_master_keys_are_at_hand(self, vault: Vault) -> None:
        await self.fill(vault)
        await vault.change_halfway()
        with capture_logs() as logs:
            await warn_of_lost_keys(vault.database, masters(1, previous=0))
        assert logs == []

    async def test_keep_no_process_from_starting(
        self, vault: Vault, settings: Settings, capsys: pytest.CaptureFixture[str]
    ) -> None:
        await self.fill(vault)
        await vault.change_halfway()
        changes = {"database_url": vault.database_url, "master_key": SecretStr(master(1))}
        async with (
            running_server(settings.model_copy(update=changes)) as server,
            http_client(server, None) as client,
        ):
            assert (await client.get("/health/ready")).status_code == 200
        assert "data_keys_need_earlier_master_key" in capsys.readouterr().err
