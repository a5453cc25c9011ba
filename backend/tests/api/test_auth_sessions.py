"""Logging out; one's sessions and password."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text

from app.db.postgres.models.sessions import SessionEnd
from tests.api.calls import API, ok, pointers, problem
from tests.api.logins import bearer, login, logout, me, refresh, stored
from tests.factories import PASSWORD, Factory, Member, Person
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
        problem(await client.post(f"{API}/auth/password", json=body), 400, "session_required")
