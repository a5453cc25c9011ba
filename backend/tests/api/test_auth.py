"""Who may call: API keys, their scopes, and the project that they work in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.core.ids import new_id
from app.core.permissions import MEMBER, Permission
from app.db.postgres.models.identity import Role
from tests.api.calls import API, new_agent, new_collection, ok, pointers, problem
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


class TestCredential:
    async def test_that_is_missing_is_asked_for(self, anyone: httpx2.AsyncClient) -> None:
        response = await anyone.get(f"{API}/agents")
        problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        "header",
        [
            "Bearer",
            "Bearer short",
            f"Bearer {'x' * 64}",
            "Basic dXNlcjpwYXNz",
            f"bearer {'ü' * 40}",
            "nonsense",
        ],
    )
    async def test_that_is_no_key_of_ours_is_401(self, anyone: httpx2.AsyncClient, header: str) -> None:
        response = await anyone.get(f"{API}/agents", headers={b"Authorization": header.encode("latin-1")})
        problem(response, 401, "unauthenticated")
        assert response.headers["WWW-Authenticate"] == "Bearer"

    @pytest.mark.parametrize(
        ("header", "said"),
        [
            (None, "has no Authorization header"),
            ("Bearer", "malformed"),
            ("Basic dXNlcjpwYXNz", "malformed"),
            ("Bearer short", "unknown, revoked or expired"),
            (f"Bearer {'x' * 64}", "unknown, revoked or expired"),
            ("Bearer eyJhbGciOiJIUzI1NiJ9.e30.bm90LXNpZ25lZC1ieS11cw", "unknown, revoked or expired"),
        ],
    )
    async def test_that_is_refused_hears_what_is_wrong(
        self, anyone: httpx2.AsyncClient, header: str | None, said: str
    ) -> None:
        headers = {"Authorization": header} if header else {}
        response = await anyone.get(f"{API}/agents", headers=headers)
        assert said in problem(response, 401, "unauthenticated")["detail"]

    async def test_is_asked_for_before_the_body_is_judged(self, anyone: httpx2.AsyncClient) -> None:
        problem(await anyone.post(f"{API}/agents", json={"nonsense": 1}), 401, "unauthenticated")

    async def test_that_has_expired_is_401(
        self, anyone: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        old = await make.key(member, expires_at=datetime.now(UTC) - timedelta(seconds=1))
        problem(await anyone.get(f"{API}/agents", headers=bearer(old.key)), 401, "unauthenticated")

    async def test_that_expires_later_still_works(
        self, anyone: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        young = await make.key(member, expires_at=datetime.now(UTC) + timedelta(minutes=1))
        ok(await anyone.get(f"{API}/agents", headers=bearer(young.key)))

    async def test_that_is_revoked_stops_at_once(
        self, client: httpx2.AsyncClient, anyone: httpx2.AsyncClient
    ) -> None:
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Second"}), 201)
        ok(await anyone.get(f"{API}/agents", headers=bearer(made["key"])))
        assert (await client.delete(f"{API}/auth/api-keys/{made['id']}")).status_code == 204
        problem(await anyone.get(f"{API}/agents", headers=bearer(made["key"])), 401, "unauthenticated")

    async def test_is_not_needed_for_health(self, anyone: httpx2.AsyncClient) -> None:
        ok(await anyone.get("/health/live"))
        checks = ok(await anyone.get("/health/ready"))["checks"]
        assert checks == {"database": "ok", "broker": "ok", "blobs": "ok"}


class TestMe:
    async def test_says_whom_the_key_stands_for(self, client: httpx2.AsyncClient, member: Member) -> None:
        me = ok(await client.get(f"{API}/auth/me"))
        assert (me["user_id"], me["org_id"]) == (str(member.user_id), str(member.tenant.org_id))
        assert me["project_id"] == str(member.tenant.project_id)
        assert me["permissions"] == sorted(Permission)

    async def test_names_what_the_ids_stand_for(self, client: httpx2.AsyncClient, member: Member) -> None:
        me = ok(await client.get(f"{API}/auth/me"))
        assert me["email"].endswith("@example.test")
        assert me["organization"]["id"] == str(member.tenant.org_id)
        assert me["organization"]["name"] == "Test"
        assert me["project"] == {
            "id": str(member.tenant.project_id),
            "slug": "default",
            "name": "Default",
        }
        assert me["role"] == "owner"

    async def test_says_by_which_key(self, client: httpx2.AsyncClient, server: Running) -> None:
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Second"}), 201)
        async with http_client(server, made["key"]) as second:
            by = ok(await second.get(f"{API}/auth/me"))["authenticated_by"]
        assert by == {"kind": "api_key", "id": made["id"], "expires_at": None}


class TestPermissions:
    async def test_of_a_viewer_let_read(self, server: Running, make: Factory, member: Member) -> None:
        viewer = await make.member(role=Role.VIEWER, of=member.tenant)
        async with http_client(server, viewer.key) as reader:
            for path in ("agents", "runs", "collections", "jobs"):
                ok(await reader.get(f"{API}/{path}"))

    async def test_of_a_viewer_do_not_let_write(self, server: Running, make: Factory, member: Member) -> None:
        viewer = await make.member(role=Role.VIEWER, of=member.tenant)
        async with http_client(server, viewer.key) as reader:
            body = problem(await reader.post(f"{API}/agents", json={"name": "Agent"}), 403, "forbidden")
            assert "'agents:write'" in body["detail"]
            problem(await reader.delete(f"{API}/collections/{new_id()}"), 403, "forbidden")
            problem(await reader.get(f"{API}/auth/api-keys"), 403, "forbidden")

    async def test_of_a_viewer_do_not_let_run(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        slug = await new_agent(client)
        viewer = await make.member(role=Role.VIEWER, of=member.tenant)
        async with http_client(server, viewer.key) as reader:
            response = await reader.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}})
            problem(response, 403, "forbidden")

    async def test_of_a_key_narrow_those_of_its_owner(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        narrow = await make.key(member, permissions=["search", "users:read"])
        async with http_client(server, narrow.key) as searcher:
            assert ok(await searcher.get(f"{API}/auth/me"))["permissions"] == ["search", "users:read"]
            problem(await searcher.get(f"{API}/agents"), 403, "forbidden")

    async def test_of_a_key_never_widen_those_of_its_owner(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        viewer = await make.member(role=Role.VIEWER, of=member.tenant, permissions=sorted(Permission))
        async with http_client(server, viewer.key) as reader:
            problem(await reader.post(f"{API}/agents", json={"name": "Agent"}), 403, "forbidden")


class TestCreateKey:
    async def test_shows_the_secret_this_once(self, client: httpx2.AsyncClient) -> None:
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Second"}), 201)
        assert made["key"].startswith("orr_")
        listed = await client.get(f"{API}/auth/api-keys")
        assert made["id"] in {row["id"] for row in ok(listed)["items"]}
        assert made["key"] not in listed.text

    async def test_without_permissions_gives_the_callers(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        own = ["keys:write", "search", "users:read"]
        narrow = await make.key(member, permissions=own)
        async with http_client(server, narrow.key) as caller:
            made = ok(await caller.post(f"{API}/auth/api-keys", json={"name": "Child"}), 201)
        assert made["permissions"] == own
        async with http_client(server, made["key"]) as child:
            assert ok(await child.get(f"{API}/auth/me"))["permissions"] == own

    async def test_refuses_what_the_caller_has_not(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        narrow = await make.key(member, permissions=["keys:write", "search"])
        async with http_client(server, narrow.key) as caller:
            body = {"name": "Child", "permissions": ["search", "agents:write"]}
            refused = problem(await caller.post(f"{API}/auth/api-keys", json=body), 422, "invalid")
        assert "agents:write" in refused["detail"]

    async def test_refuses_an_unknown_permission(self, client: httpx2.AsyncClient) -> None:
        body = {"name": "Child", "permissions": ["everything"]}
        assert pointers(await client.post(f"{API}/auth/api-keys", json=body)) == ["/body/permissions/0"]

    @pytest.mark.parametrize(
        "moment",
        [
            "2020-01-01T00:00:00Z",
            "0001-01-01T00:00:00+14:00",
            "9999-12-31T23:59:59-14:00",
            "2050-01-01T00:00:00",
            "soon",
        ],
    )
    async def test_refuses_an_expiry_that_is_no_time_to_come(
        self, client: httpx2.AsyncClient, moment: str
    ) -> None:
        body = {"name": "Key", "expires_at": moment}
        assert pointers(await client.post(f"{API}/auth/api-keys", json=body)) == ["/body/expires_at"]

    async def test_of_nothing_may_do_nothing(self, client: httpx2.AsyncClient, server: Running) -> None:
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "None", "permissions": []}), 201)
        async with http_client(server, made["key"]) as child:
            problem(await child.get(f"{API}/agents"), 403, "forbidden")

    async def test_is_not_for_members_without_that_right(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        plain = await make.member(role=Role.MEMBER, of=member.tenant)
        assert Permission.KEYS_WRITE not in MEMBER
        async with http_client(server, plain.key) as caller:
            problem(await caller.post(f"{API}/auth/api-keys", json={"name": "Key"}), 403, "forbidden")

    async def test_of_a_key_of_one_project_stays_in_it(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        await make.project(member, slug="second")
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Key"}), 201)
        assert made["project_id"] == str(member.tenant.project_id)
        body = {"name": "Key", "project": "second"}
        problem(await client.post(f"{API}/auth/api-keys", json=body), 404, "not_found")


class TestKeyOfAKey:
    """A key that is made with a key does not outlive it."""

    @pytest.mark.parametrize(
        ("wanted", "given"), [(None, 10), (20, 10), (5, 5)], ids=["none", "later", "earlier"]
    )
    async def test_expires_with_it_at_the_latest(
        self, server: Running, make: Factory, member: Member, wanted: int | None, given: int
    ) -> None:
        now = datetime.now(UTC)
        maker = await make.key(member, expires_at=now + timedelta(hours=10))
        body = {"name": "Child"}
        if wanted is not None:
            body["expires_at"] = (now + timedelta(hours=wanted)).isoformat()
        async with http_client(server, maker.key) as caller:
            made = ok(await caller.post(f"{API}/auth/api-keys", json=body), 201)
        assert datetime.fromisoformat(made["expires_at"]) == now + timedelta(hours=given)

    async def test_says_with_which(self, client: httpx2.AsyncClient) -> None:
        me = ok(await client.get(f"{API}/auth/me"))["authenticated_by"]["id"]
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Child"}), 201)
        assert made["made_by"] == me

    async def test_outlives_its_revocation(self, client: httpx2.AsyncClient, server: Running) -> None:
        first, second, _ = await lineage(client, server)
        await client.delete(f"{API}/auth/api-keys/{first['id']}")
        async with http_client(server, second["key"]) as caller:
            ok(await caller.get(f"{API}/agents"))

    async def test_ends_with_it_where_that_is_wanted(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        made = await lineage(client, server)
        response = await client.delete(f"{API}/auth/api-keys/{made[0]['id']}?descendants=true")
        assert response.status_code == 204
        for key in made:
            async with http_client(server, key["key"]) as caller:
                problem(await caller.get(f"{API}/agents"), 401, "unauthenticated")
        ok(await client.get(f"{API}/agents"))

    async def test_is_demoted_with_its_owner(self, server: Running, make: Factory, member: Member) -> None:
        owner = await make.member(of=member.tenant)
        async with http_client(server, owner.key) as caller:
            made = ok(await caller.post(f"{API}/auth/api-keys", json={"name": "Child"}), 201)
        async with server.resources.database.unit_of_work(member.tenant) as session:
            demote = text("UPDATE memberships SET role = 'viewer' WHERE user_id = :user")
            await session.execute(demote, {"user": owner.user_id})
        async with http_client(server, made["key"]) as caller:
            problem(await caller.post(f"{API}/agents", json={"name": "Agent"}), 403, "forbidden")


async def lineage(client: httpx2.AsyncClient, server: Running) -> list[dict[str, Any]]:
    """A key, one made with it, and one made with that."""
    made = [ok(await client.post(f"{API}/auth/api-keys", json={"name": "First"}), 201)]
    for name in ("Second", "Third"):
        async with http_client(server, made[-1]["key"]) as caller:
            made.append(ok(await caller.post(f"{API}/auth/api-keys", json={"name": name}), 201))
    return made


class TestRevokeKey:
    async def test_of_another_organization_is_404(
        self, client: httpx2.AsyncClient, server: Running, make: Factory
    ) -> None:
        async with http_client(server, (await make.member()).key) as other:
            made = ok(await other.post(f"{API}/auth/api-keys", json={"name": "Theirs"}), 201)
            problem(await client.delete(f"{API}/auth/api-keys/{made['id']}"), 404, "not_found")
            ok(await other.get(f"{API}/agents"))

    async def test_twice_is_404(self, client: httpx2.AsyncClient) -> None:
        made = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Second"}), 201)
        await client.delete(f"{API}/auth/api-keys/{made['id']}")
        problem(await client.delete(f"{API}/auth/api-keys/{made['id']}"), 404, "not_found")


class TestProject:
    async def test_of_a_key_is_its_own_by_default(self, client: httpx2.AsyncClient, member: Member) -> None:
        for named in (None, str(member.tenant.project_id), "default"):
            headers = {"X-Project-Id": named} if named else {}
            me = ok(await client.get(f"{API}/auth/me", headers=headers))
            assert me["project_id"] == str(member.tenant.project_id)

    async def test_of_a_key_cannot_be_changed(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        second = await make.project(member, slug="second")
        for named in (str(second.project_id), "second"):
            response = await client.get(f"{API}/agents", headers={"X-Project-Id": named})
            problem(response, 404, "not_found")

    async def test_of_another_organization_is_like_a_missing_one(
        self, client: httpx2.AsyncClient, make: Factory
    ) -> None:
        details = []
        for named in (str((await make.member()).tenant.project_id), str(new_id())):
            response = await client.get(f"{API}/agents", headers={"X-Project-Id": named})
            details.append(problem(response, 404, "not_found")["detail"].replace(named, "…"))
        assert details[0] == details[1]

    async def test_is_demanded_of_a_key_without_one(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        everywhere = await make.key(member, unbound=True)
        async with http_client(server, everywhere.key) as caller:
            assert ok(await caller.get(f"{API}/auth/me"))["project_id"] is None
            for path in ("agents", "runs", "collections", "jobs"):
                problem(await caller.get(f"{API}/{path}"), 400, "project_required")

    async def test_separates_what_is_in_it(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        agent, shelf = await new_agent(client), await new_collection(client)
        second, everywhere = await make.project(member), await make.key(member, unbound=True)
        async with http_client(server, everywhere.key) as caller:
            for project, status in ((member.tenant.project_id, 200), (second.project_id, 404)):
                headers = {"X-Project-Id": str(project)}
                for path in (f"agents/{agent}", f"collections/{shelf}"):
                    response = await caller.get(f"{API}/{path}", headers=headers)
                    assert response.status_code == status
