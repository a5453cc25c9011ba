"""What the operator does for users on the machine itself, and what the first start gives its owner."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from app.core.errors import Conflict, Invalid, Misconfigured, NotFound, Unauthenticated
from app.core.ids import new_id
from app.core.passwords import Passwords
from app.embedded import Services
from app.resources import make_auth
from app.services.auth_service import Bootstrapped
from app.services.session_service import Client, Login, SessionService
from app.services.user_service import PasswordSet, UserService
from tests.factories import CHEAP_ARGON2
from tests.services.vault import Vault, open_vault

HERE = Client("127.0.0.1", "tests")
PASSWORD = "a lantern in the harbour"


@pytest.fixture
async def vault(services: Services, tmp_path: Path) -> AsyncIterator[Vault]:
    """An installation before its first start."""
    async with open_vault(services, tmp_path) as opened:
        yield opened


@pytest.fixture
def sessions(vault: Vault) -> SessionService:
    settings = vault.settings(master_key=0)
    auth = make_auth(settings, vault.database, b"p" * 32, session_secret=b"s" * 32)
    auth.passwords.argon2 = CHEAP_ARGON2
    return SessionService(vault.database, auth.tokens, auth.passwords, settings, auth.forget_sessions)


@pytest.fixture
def users(vault: Vault) -> UserService:
    passwords = Passwords()
    passwords.argon2 = CHEAP_ARGON2
    return UserService(vault.database, passwords, 8)


async def start(vault: Vault, **given: Any) -> Bootstrapped:
    settings = vault.settings(master_key=0).model_copy(update=given)
    return await make_auth(settings, vault.database, b"p" * 32, session_secret=b"s" * 32).bootstrap(settings)


class TestSetPassword:
    async def test_lets_an_owner_log_in_who_never_could(
        self, vault: Vault, users: UserService, sessions: SessionService
    ) -> None:
        await start(vault)
        with pytest.raises(Unauthenticated):
            await sessions.login(Login("owner@orrery.local", PASSWORD), HERE)
        done = await users.set_password(None, PASSWORD)
        assert done == PasswordSet("owner@orrery.local", 0)
        await sessions.login(Login("owner@orrery.local", PASSWORD), HERE)

    async def test_ends_the_sessions_and_the_password_of_before(
        self, vault: Vault, users: UserService, sessions: SessionService
    ) -> None:
        await start(vault, bootstrap_email="ada@example.test", bootstrap_password=SecretStr("correct horse"))
        grant = await sessions.login(Login("ada@example.test", "correct horse"), HERE)
        done = await users.set_password("ADA@example.test", PASSWORD)
        assert done.sessions_ended == 1
        with pytest.raises(Unauthenticated):
            await sessions.refresh(grant.refresh_token, HERE)
        with pytest.raises(Unauthenticated):
            await sessions.login(Login("ada@example.test", "correct horse"), HERE)

    async def test_replaces_the_placeholder_of_an_email(
        self, vault: Vault, users: UserService, sessions: SessionService
    ) -> None:
        await start(vault)
        await users.set_password(None, PASSWORD, new_email="ada@example.test")
        await sessions.login(Login("ada@example.test", PASSWORD), HERE)
        with pytest.raises(Unauthenticated):
            await sessions.login(Login("owner@orrery.local", PASSWORD), HERE)

    @pytest.mark.parametrize(
        ("password", "new_email", "sentence"),
        [
            ("short", None, "needs at least 8 characters"),
            ("x" * 1025, None, "has at most 1024 characters"),
            (PASSWORD, "ada", "'ada' is refused: an address is like"),
        ],
    )
    async def test_refuses_what_nobody_could_log_in_with(
        self, vault: Vault, users: UserService, password: str, new_email: str | None, sentence: str
    ) -> None:
        await start(vault)
        with pytest.raises(Invalid, match=sentence):
            await users.set_password(None, password, new_email=new_email)

    async def test_of_somebody_unknown_names_the_owner(self, vault: Vault, users: UserService) -> None:
        await start(vault)
        with pytest.raises(NotFound, match=r"the owner is 'owner@orrery\.local'"):
            await users.set_password("nobody@example.test", PASSWORD)

    async def test_before_the_first_start_says_so(self, users: UserService) -> None:
        with pytest.raises(NotFound, match="start `orrery serve` once"):
            await users.set_password(None, PASSWORD)

    async def test_refuses_the_email_of_another(self, vault: Vault, users: UserService) -> None:
        await start(vault)
        values = {"id": new_id(), "email": "taken@example.test"}
        await vault.as_owner("INSERT INTO users (id, email, name) VALUES (:id, :email, '')", **values)
        with pytest.raises(Conflict, match="another user's"):
            await users.set_password(None, PASSWORD, new_email="Taken@example.test")

    async def test_refuses_a_suspended_user(self, vault: Vault, users: UserService) -> None:
        await start(vault)
        await vault.as_owner("UPDATE users SET suspended_at = now()")
        with pytest.raises(NotFound, match="is suspended"):
            await users.set_password(None, PASSWORD)


class TestFirstStart:
    @pytest.mark.parametrize(
        ("given", "sentence"),
        [
            ({"bootstrap_password": SecretStr("guess")}, "ORRERY_BOOTSTRAP_PASSWORD has 5 characters: .* 8 "),
            ({"bootstrap_email": "ada at home"}, "ORRERY_BOOTSTRAP_EMAIL is 'ada at home': an address is"),
        ],
    )
    async def test_refuses_an_owner_who_could_not_log_in(
        self, vault: Vault, given: dict[str, Any], sentence: str
    ) -> None:
        with pytest.raises(Misconfigured, match=sentence) as raised:
            await start(vault, **given)
        assert "guess" not in raised.value.detail
        assert await vault.as_owner("SELECT id FROM users") == []

    async def test_names_what_a_later_one_ignores(self, vault: Vault) -> None:
        late = {"bootstrap_email": "late@example.test", "bootstrap_password": SecretStr("correct horse")}
        assert (await start(vault)).ignored == ()
        assert (await start(vault, **late)).ignored == ("ORRERY_BOOTSTRAP_EMAIL", "ORRERY_BOOTSTRAP_PASSWORD")
        assert (await start(vault)).ignored == ()
        assert await vault.as_owner("SELECT email FROM users") == [("owner@orrery.local",)]

    async def test_takes_empty_settings_for_none(self, vault: Vault) -> None:
        await start(vault, bootstrap_email="", bootstrap_password=SecretStr(""))
        assert await vault.as_owner("SELECT email FROM users") == [("owner@orrery.local",)]
