"""Logging in, going on and logging out; one's sessions and password."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
import pytest_asyncio
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import func, select, text

from app.core.ids import new_id
from app.core.session_tokens import SessionTokens
from app.db.postgres.models.identity import Role, User
from app.db.postgres.models.sessions import RefreshToken, SessionEnd, UserSession
from tests.api.calls import API, ok, pointers, problem
from tests.conftest import Running, http_client
from tests.factories import PASSWORD, Factory, Member, Person

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def person(make: Factory) -> Person:
    return await make.person()


@pytest_asyncio.fixture(loop_scope="session")
async def anyone(server: Running) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls without a credential."""
    async with http_client(server, None) as opened:
        yield opened


async def login(anyone: httpx2.AsyncClient, person: Person, **more: Any) -> dict[str, Any]:
    return ok(await anyone.post(f"{API}/auth/login", json=person.login | more))


async def refresh(anyone: httpx2.AsyncClient, token: str) -> httpx2.Response:
    return await anyone.post(f"{API}/auth/refresh", json={"refresh_token": token})


async def me(anyone: httpx2.AsyncClient, grant: dict[str, Any]) -> httpx2.Response:
    return await anyone.get(f"{API}/auth/me", headers=bearer(grant))


def bearer(grant: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {grant['access_token']}"}


async def stored(server: Running, session_id: str) -> UserSession:
    async with server.resources.database.system_work() as session:
        return await session.get_one(UserSession, UUID(session_id))


async def age(server: Running, session_id: str, by: timedelta) -> None:
    """What happened in the session happened earlier, by so much."""
    statements = (
        "UPDATE user_sessions SET expires_at = expires_at - CAST(:by AS interval), "
        "created_at = created_at - CAST(:by AS interval) WHERE id = :id",
        "UPDATE refresh_tokens SET used_at = used_at - CAST(:by AS interval) WHERE session_id = :id",
    )
    async with server.resources.database.system_work() as session:
        for statement in statements:
            await session.execute(text(statement), {"by": by, "id": UUID(session_id)})


class TestLogin:
    async def test_gives_an_access_token_of_the_person(
        self, anyone: httpx2.AsyncClient, person: Person
    ) -> None:
        grant = await login(anyone, person)
        found = ok(await me(anyone, grant))
        assert (found["user_id"], found["org_id"]) == (str(person.user_id), str(person.tenant.org_id))
        by = found["authenticated_by"]
        assert (by["kind"], by["id"]) == ("session", grant["session_id"])

    async def test_takes_the_email_in_any_case(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        body = person.login | {"email": f" {person.email.upper()} "}
        ok(await anyone.post(f"{API}/auth/login", json=body))

    async def test_is_never_cached(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        response = await anyone.post(f"{API}/auth/login", json=person.login)
        assert response.headers["Cache-Control"] == "no-store"

    async def test_stores_no_token(self, anyone: httpx2.AsyncClient, person: Person, server: Running) -> None:
        grant = await login(anyone, person)
        async with server.resources.database.system_work() as session:
            rows = ""
            for table in ("user_sessions", "refresh_tokens", "login_attempts"):
                rows += str(list(await session.execute(text(f"SELECT t::text FROM {table} t"))))
        assert grant["session_id"] in rows
        assert grant["refresh_token"].rpartition("_")[2] not in rows
        assert grant["access_token"] not in rows

    async def test_works_in_a_project_by_header(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        grant = await login(anyone, person)
        problem(await anyone.get(f"{API}/agents", headers=bearer(grant)), 400, "project_required")
        ok(await anyone.get(f"{API}/agents", headers=bearer(grant) | {"X-Project-Id": "default"}))

    async def test_has_the_permissions_of_the_role(self, anyone: httpx2.AsyncClient, make: Factory) -> None:
        viewer = await make.person(role=Role.VIEWER)
        grant = await login(anyone, viewer)
        headers = bearer(grant) | {"X-Project-Id": "default"}
        problem(await anyone.post(f"{API}/agents", json={"name": "A"}, headers=headers), 403, "forbidden")

    @pytest.mark.parametrize("field", ["email", "password"])
    async def test_needs_both(self, anyone: httpx2.AsyncClient, person: Person, field: str) -> None:
        body = {name: value for name, value in person.login.items() if name != field}
        assert pointers(await anyone.post(f"{API}/auth/login", json=body)) == [f"/body/{field}"]

    async def test_renews_a_hash_with_old_parameters(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        weak = Argon2Hasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        async with server.resources.database.system_work() as session:
            (await session.get_one(User, person.user_id)).password_hash = weak
        await login(anyone, person)
        async with server.resources.database.system_work() as session:
            renewed = (await session.get_one(User, person.user_id)).password_hash
        assert renewed
        assert "$m=8,t=1,p=1$" in weak
        assert "$m=8,t=1,p=1$" not in renewed
        await login(anyone, person)

    async def test_beyond_the_limit_ends_the_oldest_session(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.resources.sessions.settings, "sessions_per_user", 2)
        first, second, third = [await login(anyone, person) for _ in range(3)]
        problem(await me(anyone, first), 401, "unauthenticated")
        for grant in (second, third):
            ok(await me(anyone, grant))
        assert (await stored(server, first["session_id"])).end_reason is SessionEnd.SURPLUS


class TestOrganization:
    async def test_has_to_be_chosen_where_there_are_several(
        self, anyone: httpx2.AsyncClient, make: Factory, person: Person
    ) -> None:
        await make.join(person)
        body = problem(
            await anyone.post(f"{API}/auth/login", json=person.login), 400, "organization_required"
        )
        assert "`organization`" in body["detail"]

    @pytest.mark.parametrize("by", ["id", "slug"])
    async def test_is_chosen_by_id_or_slug(
        self, anyone: httpx2.AsyncClient, make: Factory, person: Person, by: str
    ) -> None:
        other = await make.join(person, Role.VIEWER)
        first = ok(await me(anyone, await login(anyone, person, organization=str(person.tenant.org_id))))
        grant = await login(anyone, person, organization=str(other.org_id))
        chosen = ok(await me(anyone, grant))["organization"][by]
        found = ok(await me(anyone, await login(anyone, person, organization=chosen)))
        assert (found["org_id"], found["role"]) == (str(other.org_id), "viewer")
        assert (first["org_id"], first["role"]) == (str(person.tenant.org_id), "owner")

    async def test_of_others_answers_like_a_missing_one(
        self, anyone: httpx2.AsyncClient, make: Factory, person: Person
    ) -> None:
        answers = []
        for wanted in (str((await make.member()).tenant.org_id), str(new_id())):
            response = await anyone.post(f"{API}/auth/login", json=person.login | {"organization": wanted})
            assert pointers(response) == ["/body/organization"]
            answers.append(response.json()["detail"].replace(wanted, "…"))
        assert answers[0] == answers[1]

    async def test_is_not_talked_of_to_strangers(
        self, anyone: httpx2.AsyncClient, make: Factory, person: Person
    ) -> None:
        await make.join(person)
        body = person.login | {"password": "wrong", "organization": "nowhere"}
        problem(await anyone.post(f"{API}/auth/login", json=body), 401, "invalid_credentials")


class TestRefresh:
    async def test_goes_on_with_new_tokens(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        first = await login(anyone, person)
        second = ok(await refresh(anyone, first["refresh_token"]))
        assert second["session_id"] == first["session_id"]
        assert second["refresh_token"] != first["refresh_token"]
        ok(await me(anyone, second))
        ok(await refresh(anyone, second["refresh_token"]))

    async def test_answers_the_same_to_all_who_ask_at_once(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        grant = await login(anyone, person)
        answers = await asyncio.gather(*(refresh(anyone, grant["refresh_token"]) for _ in range(50)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["refresh_token"] for answer in answers}) == 1
        assert await unused(server, grant["session_id"]) == 1

    async def test_without_tolerance_has_one_winner_and_then_ends(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.resources.sessions.settings, "refresh_tolerance_s", -1)
        grant = await login(anyone, person)
        answers = await asyncio.gather(*(refresh(anyone, grant["refresh_token"]) for _ in range(50)))
        assert [answer.status_code for answer in answers].count(200) == 1
        assert (await stored(server, grant["session_id"])).end_reason is SessionEnd.REUSE
        (winner,) = [answer.json() for answer in answers if answer.status_code == 200]
        problem(await refresh(anyone, winner["refresh_token"]), 401, "unauthenticated")
        problem(await me(anyone, winner), 401, "unauthenticated")

    async def test_of_a_token_used_long_ago_ends_the_session(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        first = await login(anyone, person)
        second = ok(await refresh(anyone, first["refresh_token"]))
        await age(server, first["session_id"], timedelta(seconds=11))
        problem(await refresh(anyone, first["refresh_token"]), 401, "unauthenticated")
        for grant in (first, second):
            problem(await me(anyone, grant), 401, "unauthenticated")
            problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")
        assert (await stored(server, first["session_id"])).end_reason is SessionEnd.REUSE

    async def test_of_a_token_whose_successor_was_used_ends_the_session(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        first = await login(anyone, person)
        second = ok(await refresh(anyone, first["refresh_token"]))
        third = ok(await refresh(anyone, second["refresh_token"]))
        problem(await refresh(anyone, first["refresh_token"]), 401, "unauthenticated")
        problem(await refresh(anyone, third["refresh_token"]), 401, "unauthenticated")

    async def test_leaves_other_sessions_alone(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        stolen, other = await login(anyone, person), await login(anyone, person)
        ok(await refresh(anyone, stolen["refresh_token"]))
        await age(server, stolen["session_id"], timedelta(minutes=1))
        await refresh(anyone, stolen["refresh_token"])
        ok(await me(anyone, other))
        ok(await refresh(anyone, other["refresh_token"]))

    async def test_ends_when_it_was_idle_too_long(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        grant = await login(anyone, person)
        idle = server.resources.settings.session_idle_s
        await age(server, grant["session_id"], timedelta(seconds=idle + 1))
        problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")

    async def test_prolongs_up_to_the_limit(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        settings = server.resources.settings
        grant = await login(anyone, person)
        for days in (13, 13, 13, 13, 13, 13):
            await age(server, grant["session_id"], timedelta(days=days))
            grant = ok(await refresh(anyone, grant["refresh_token"]))
        row = await stored(server, grant["session_id"])
        assert row.expires_at == row.created_at + timedelta(seconds=settings.session_max_s)
        await age(server, grant["session_id"], timedelta(days=13))
        problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")

    @pytest.mark.parametrize(
        "ending",
        [
            "UPDATE users SET suspended_at = now() WHERE id = :user",
            "UPDATE user_sessions SET ended_at = now() WHERE user_id = :user",
        ],
    )
    async def test_ends_with_what_it_rests_on(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running, ending: str
    ) -> None:
        grant = await login(anyone, person)
        async with server.resources.database.system_work() as session:
            await session.execute(text(ending), {"user": person.user_id})
        problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")

    async def test_ends_with_the_membership(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        grant = await login(anyone, person)
        async with server.resources.database.unit_of_work(person.tenant) as session:
            await session.execute(text("DELETE FROM memberships"))
        problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")

    @pytest.mark.parametrize("token", ["x", "orf_x", f"orf_{'0' * 32}_{'a' * 43}", "ü" * 40])
    async def test_of_what_is_no_token_is_401(self, anyone: httpx2.AsyncClient, token: str) -> None:
        problem(await refresh(anyone, token), 401, "unauthenticated")

    async def test_of_a_made_up_token_harms_nobody(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        grant = await login(anyone, person)
        forged = SessionTokens(b"x" * 32).first_refresh_token(UUID(grant["session_id"]))
        problem(await refresh(anyone, forged), 401, "unauthenticated")
        ok(await me(anyone, grant))
        ok(await refresh(anyone, grant["refresh_token"]))

    async def test_says_what_to_send(self, anyone: httpx2.AsyncClient) -> None:
        body = problem(await anyone.post(f"{API}/auth/refresh"), 401, "unauthenticated")
        assert "`refresh_token`" in body["detail"]


async def unused(server: Running, session_id: str) -> int:
    """How many refresh tokens of the session could be used."""
    statement = (
        select(func.count())
        .select_from(RefreshToken)
        .where(RefreshToken.session_id == UUID(session_id), RefreshToken.used_at.is_(None))
    )
    async with server.resources.database.system_work() as session:
        return int((await session.execute(statement)).scalar_one())


class TestLogout:
    @pytest.mark.parametrize("by", ["refresh_token", "access_token"])
    async def test_ends_the_session_at_once(
        self, anyone: httpx2.AsyncClient, person: Person, by: str
    ) -> None:
        grant, other = await login(anyone, person), await login(anyone, person)
        for _ in range(2):
            assert (await logout(anyone, grant, by)).status_code == 204
        problem(await me(anyone, grant), 401, "unauthenticated")
        problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")
        ok(await me(anyone, other))

    async def test_takes_a_used_refresh_token(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        grant = await login(anyone, person)
        next_grant = ok(await refresh(anyone, grant["refresh_token"]))
        assert (await logout(anyone, grant, "refresh_token")).status_code == 204
        problem(await me(anyone, next_grant), 401, "unauthenticated")

    async def test_takes_an_expired_access_token(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.resources.auth.tokens, "access_s", -3600)
        grant = await login(anyone, person)
        problem(await me(anyone, grant), 401, "unauthenticated")
        assert (await logout(anyone, grant, "access_token")).status_code == 204
        assert (await stored(server, grant["session_id"])).end_reason is SessionEnd.LOGOUT

    async def test_without_a_token_has_nothing_to_do(self, anyone: httpx2.AsyncClient) -> None:
        assert (await anyone.post(f"{API}/auth/logout")).status_code == 204

    async def test_by_a_token_that_is_none_is_401(self, client: httpx2.AsyncClient) -> None:
        problem(await client.post(f"{API}/auth/logout"), 401, "unauthenticated")
        response = await client.post(f"{API}/auth/logout", json={"refresh_token": "orf_none"})
        problem(response, 401, "unauthenticated")

    async def test_everywhere_ends_all_sessions(
        self, anyone: httpx2.AsyncClient, person: Person, make: Factory
    ) -> None:
        other = await make.join(person)
        grants = [
            await login(anyone, person, organization=str(org_id))
            for org_id in (person.tenant.org_id, other.org_id)
        ]
        response = await anyone.post(f"{API}/auth/logout-all", headers=bearer(grants[0]))
        assert ok(response) == {"ended": 2}
        for grant in grants:
            problem(await me(anyone, grant), 401, "unauthenticated")


async def logout(anyone: httpx2.AsyncClient, grant: dict[str, Any], by: str) -> httpx2.Response:
    if by == "access_token":
        return await anyone.post(f"{API}/auth/logout", headers=bearer(grant))
    return await anyone.post(f"{API}/auth/logout", json={"refresh_token": grant["refresh_token"]})


class TestSessions:
    async def test_show_where_one_is_logged_in(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        old = await login(anyone, person)
        anyone.headers["User-Agent"] = "Browser/1.0"
        new = await login(anyone, person)
        shown = ok(await anyone.get(f"{API}/auth/sessions", headers=bearer(new)))["items"]
        assert [row["id"] for row in shown] == [new["session_id"], old["session_id"]]
        assert [row["current"] for row in shown] == [True, False]
        assert (shown[0]["user_agent"], shown[0]["ip_hint"]) == ("Browser/1.0", "127.0.0.0/24")
        assert set(shown[0]) >= {"created_at", "last_used_at", "expires_at", "org_id", "browser"}

    async def test_are_paged(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        grants = [await login(anyone, person) for _ in range(3)]
        seen, cursor = [], ""
        for _ in range(3):
            path = f"{API}/auth/sessions?limit=1{cursor}"
            page = ok(await anyone.get(path, headers=bearer(grants[0])))
            seen += [row["id"] for row in page["items"]]
            cursor = f"&cursor={page['next_cursor']}"
        assert page["next_cursor"] is None
        assert seen == [grant["session_id"] for grant in reversed(grants)]

    async def test_that_ended_are_not_shown(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        gone, here = await login(anyone, person), await login(anyone, person)
        await logout(anyone, gone, "refresh_token")
        shown = ok(await anyone.get(f"{API}/auth/sessions", headers=bearer(here)))["items"]
        assert [row["id"] for row in shown] == [here["session_id"]]

    async def test_can_be_ended_one_by_one(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        other, here = await login(anyone, person), await login(anyone, person)
        path = f"{API}/auth/sessions/{other['session_id']}"
        assert (await anyone.delete(path, headers=bearer(here))).status_code == 204
        problem(await me(anyone, other), 401, "unauthenticated")
        problem(await anyone.delete(path, headers=bearer(here)), 404, "not_found")
        ok(await me(anyone, here))

    async def test_of_others_are_not_there(
        self, anyone: httpx2.AsyncClient, make: Factory, person: Person
    ) -> None:
        colleague = await make.person(of=person.tenant)
        theirs, mine = await login(anyone, colleague), await login(anyone, person)
        path = f"{API}/auth/sessions/{theirs['session_id']}"
        problem(await anyone.delete(path, headers=bearer(mine)), 404, "not_found")
        ok(await me(anyone, theirs))

    async def test_by_a_key_are_those_of_its_organization(
        self, anyone: httpx2.AsyncClient, make: Factory, person: Person, server: Running
    ) -> None:
        other = await make.join(person)
        here = await login(anyone, person, organization=str(person.tenant.org_id))
        there = await login(anyone, person, organization=str(other.org_id))
        key = await make.key(Member(person.user_id, person.tenant, ""))
        async with http_client(server, key.key) as caller:
            shown = ok(await caller.get(f"{API}/auth/sessions"))["items"]
            assert [row["id"] for row in shown] == [here["session_id"]]
            problem(await caller.delete(f"{API}/auth/sessions/{there['session_id']}"), 404, "not_found")
            assert ok(await caller.post(f"{API}/auth/logout-all")) == {"ended": 1}
        ok(await me(anyone, there))

    async def test_note_when_they_were_used(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        grant = await login(anyone, person)
        async with server.resources.database.system_work() as session:
            await session.execute(
                text("UPDATE user_sessions SET last_used_at = now() - interval '1 hour' WHERE id = :id"),
                {"id": UUID(grant["session_id"])},
            )
        before = await stored(server, grant["session_id"])
        ok(await me(anyone, grant))
        after = await stored(server, grant["session_id"])
        assert after.last_used_at - before.last_used_at > timedelta(minutes=59)


class TestPassword:
    async def change(
        self, anyone: httpx2.AsyncClient, grant: dict[str, Any], current: str, new: str
    ) -> httpx2.Response:
        body = {"current_password": current, "new_password": new}
        return await anyone.post(f"{API}/auth/password", json=body, headers=bearer(grant))

    async def test_is_changed_with_the_current_one(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        grant = await login(anyone, person)
        assert (await self.change(anyone, grant, PASSWORD, "a new password")).status_code == 204
        problem(await anyone.post(f"{API}/auth/login", json=person.login), 401, "invalid_credentials")
        await login(anyone, person, password="a new password")

    async def test_ends_the_other_sessions(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        other, here = await login(anyone, person), await login(anyone, person)
        assert (await self.change(anyone, here, PASSWORD, "a new password")).status_code == 204
        problem(await me(anyone, other), 401, "unauthenticated")
        problem(await refresh(anyone, other["refresh_token"]), 401, "unauthenticated")
        ok(await me(anyone, here))
        ok(await refresh(anyone, here["refresh_token"]))

    @pytest.mark.parametrize(
        ("current", "new", "field"),
        [
            ("wrong", "a new password", "current_password"),
            (PASSWORD, "short", "new_password"),
            (PASSWORD, PASSWORD, "new_password"),
        ],
    )
    async def test_is_refused_by_field(
        self, anyone: httpx2.AsyncClient, person: Person, current: str, new: str, field: str
    ) -> None:
        grant = await login(anyone, person)
        assert pointers(await self.change(anyone, grant, current, new)) == [f"/body/{field}"]
        await login(anyone, person)

    async def test_cannot_be_guessed_at_length(self, anyone: httpx2.AsyncClient, person: Person) -> None:
        grant = await login(anyone, person)
        for _ in range(5):
            await self.change(anyone, grant, "wrong", "a new password")
        response = await self.change(anyone, grant, PASSWORD, "a new password")
        problem(response, 429, "too_many_logins")

    async def test_is_not_changed_by_a_key(self, client: httpx2.AsyncClient) -> None:
        body = {"current_password": PASSWORD, "new_password": "a new password"}
        problem(await client.post(f"{API}/auth/password", json=body), 403, "forbidden")
