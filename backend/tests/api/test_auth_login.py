"""Logging in, and going on by refresh."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import httpx2
import pytest
from pwdlib.hashers.argon2 import Argon2Hasher
from sqlalchemy import text

from app.core.ids import new_id
from app.core.session_tokens import SessionTokens
from app.db.postgres.models.identity import Role, User
from app.db.postgres.models.sessions import SessionEnd
from tests.api.calls import API, ok, pointers, problem
from tests.api.logins import age, bearer, login, me, refresh, stored
from tests.factories import PASSWORD, Factory, Person
from tests.fixtures import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")


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
            for table in ("user_sessions", "login_attempts"):
                rows += str(list(await session.execute(text(f"SELECT t::text FROM {table} t"))))
        assert grant["session_id"] in rows
        assert grant["refresh_token"].split("_", 3)[3] not in rows
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
        assert (await stored(server, grant["session_id"])).generation == 1

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

    @pytest.mark.parametrize("which", [0, 1, 17, 38])
    async def test_of_any_earlier_token_of_a_long_chain_ends_the_session(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running, which: int
    ) -> None:
        grants = [await login(anyone, person)]
        for _ in range(40):
            grants.append(ok(await refresh(anyone, grants[-1]["refresh_token"])))
        await age(server, grants[0]["session_id"], timedelta(days=1))
        problem(await refresh(anyone, grants[which]["refresh_token"]), 401, "unauthenticated")
        problem(await refresh(anyone, grants[-1]["refresh_token"]), 401, "unauthenticated")
        problem(await me(anyone, grants[-1]), 401, "unauthenticated")
        assert (await stored(server, grants[0]["session_id"])).end_reason is SessionEnd.REUSE

    async def test_of_a_token_used_in_another_month_ends_the_session(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        first = grant = await login(anyone, person)
        for _ in range(4):
            grant = ok(await refresh(anyone, grant["refresh_token"]))
            await age(server, grant["session_id"], timedelta(days=13))
        problem(await refresh(anyone, first["refresh_token"]), 401, "unauthenticated")
        assert (await stored(server, first["session_id"])).end_reason is SessionEnd.REUSE

    async def test_however_often_stores_nothing_more(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        async def rows() -> int:
            tables = (
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            )
            async with server.resources.database.system_work() as session:
                names = set((await session.execute(text(tables))).scalars())
                counted = [name for name in names if "session" in name or "token" in name]
                statements = [f"SELECT count(*) FROM {name}" for name in counted]
                return sum([(await session.execute(text(s))).scalar_one() for s in statements])

        grant = await login(anyone, person)
        before = await rows()
        for _ in range(30):
            grant = ok(await refresh(anyone, grant["refresh_token"]))
        assert await rows() == before

    async def test_of_a_token_of_before_a_backup_was_restored_ends_the_session(
        self, anyone: httpx2.AsyncClient, person: Person, server: Running
    ) -> None:
        first = await login(anyone, person)
        second = ok(await refresh(anyone, first["refresh_token"]))
        set_back = text("UPDATE user_sessions SET generation = 0, refreshed_at = NULL WHERE id = :id")
        async with server.resources.database.system_work() as session:
            await session.execute(set_back, {"id": UUID(first["session_id"])})
        problem(await refresh(anyone, second["refresh_token"]), 401, "unauthenticated")
        problem(await refresh(anyone, first["refresh_token"]), 401, "unauthenticated")

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
            leave = text("DELETE FROM memberships WHERE user_id = :user")
            await session.execute(leave, {"user": person.user_id})
        problem(await refresh(anyone, grant["refresh_token"]), 401, "unauthenticated")

    @pytest.mark.parametrize(
        "token",
        ["x", "orf_x", f"orf_{'0' * 32}_{'a' * 43}", f"orf_{'0' * 32}_0_{'a' * 43}", "ü" * 40],
    )
    async def test_of_what_is_no_token_is_401(self, anyone: httpx2.AsyncClient, token: str) -> None:
        problem(await refresh(anyone, token), 401, "unauthenticated")

    @pytest.mark.parametrize("generation", [0, 1, 2])
    async def test_of_a_made_up_token_harms_nobody(
        self, anyone: httpx2.AsyncClient, person: Person, generation: int
    ) -> None:
        grant = ok(await refresh(anyone, (await login(anyone, person))["refresh_token"]))
        head, session_id, _, mac = grant["refresh_token"].split("_", 3)
        forged = SessionTokens(b"x" * 32).refresh_token(UUID(session_id), generation)
        moved = f"{head}_{session_id}_{generation}_{mac[::-1]}"
        for token in (forged, moved):
            problem(await refresh(anyone, token), 401, "unauthenticated")
            problem(
                await anyone.post(f"{API}/auth/logout", json={"refresh_token": token}), 401, "unauthenticated"
            )
        ok(await me(anyone, grant))
        ok(await refresh(anyone, grant["refresh_token"]))

    async def test_says_what_to_send(self, anyone: httpx2.AsyncClient) -> None:
        body = problem(await anyone.post(f"{API}/auth/refresh"), 401, "unauthenticated")
        assert "`refresh_token`" in body["detail"]
