"""Secrets over HTTP: written, replaced, described, deleted, and never shown."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from app.core.ids import new_id
from app.db.postgres.models.identity import Role
from tests.api.calls import API, ok, pointers, problem
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")
VALUE = "sk-canary-4f1d9a7c02be"


async def new_secret(client: httpx2.AsyncClient, **changes: Any) -> dict[str, Any]:
    body = {"name": f"s-{new_id().hex[-12:]}", "value": VALUE} | changes
    return ok(await client.post(f"{API}/secrets", json=body), 201)


class TestCreate:
    async def test_answers_metadata_and_a_hint(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client, name="weather", description="Forecasts")
        assert {key: made[key] for key in ("name", "description", "hint")} == {
            "name": "weather",
            "description": "Forecasts",
            "hint": "…02be",
        }
        assert "value" not in made

    async def test_of_a_short_value_hints_at_nothing(self, client: httpx2.AsyncClient) -> None:
        assert (await new_secret(client, value="hunter2"))["hint"] is None

    async def test_by_a_name_that_is_taken_is_409(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client)
        body = {"name": made["name"], "value": VALUE}
        problem(await client.post(f"{API}/secrets", json=body), 409, "duplicate")

    @pytest.mark.parametrize("name", ["", "A", "has space", "1st", "x" * 64])
    async def test_by_a_name_that_is_no_slug_is_422(self, client: httpx2.AsyncClient, name: str) -> None:
        response = await client.post(f"{API}/secrets", json={"name": name, "value": VALUE})
        assert pointers(response) == ["/body/name"]

    async def test_by_a_name_shaped_like_an_id_is_422(self, client: httpx2.AsyncClient) -> None:
        body = {"name": f"a{str(new_id())[1:]}", "value": VALUE}
        assert pointers(await client.post(f"{API}/secrets", json=body)) == ["/body/name"]

    async def test_of_no_value_is_422(self, client: httpx2.AsyncClient) -> None:
        body = {"name": "empty", "value": ""}
        assert pointers(await client.post(f"{API}/secrets", json=body)) == ["/body/value"]

    async def test_of_a_value_that_is_too_long_is_422(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/secrets", json={"name": "long", "value": VALUE * 4000})
        assert pointers(response) == ["/body/value"]
        assert VALUE not in response.text


class TestNeverQuoted:
    @pytest.mark.parametrize(
        "body",
        [
            {"name": "x-1", "value": [VALUE]},
            {"name": "x-1", "value": {"value": VALUE}},
            {"name": "x-1", "valeu": VALUE},
            {"name": VALUE + " ", "value": "right"},
            {"name": "x-1", "value": VALUE + "\x00"},
            {"name": "x-1", "value": VALUE, "description": 1},
            {"name": "x-1", "value": VALUE, "extra": VALUE},
            {"name": [VALUE], "value": VALUE},
            {"description": {"it is": VALUE}},
            VALUE,
            [VALUE],
        ],
    )
    async def test_however_wrong_the_request_is(self, client: httpx2.AsyncClient, body: Any) -> None:
        response = await client.post(f"{API}/secrets", json=body)
        problem(response, 422, "invalid")
        assert VALUE not in response.text

    @pytest.mark.parametrize("value", [4111222233334444, 411122223333.5, True])
    async def test_where_it_is_a_number(self, client: httpx2.AsyncClient, value: Any) -> None:
        made = await new_secret(client)
        response = await client.put(f"{API}/secrets/{made['id']}/value", json={"value": value})
        assert pointers(response) == ["/body/value"]
        assert str(value) not in response.text

    @pytest.mark.parametrize("path", ["agents", "collections", "auth/api-keys", "search"])
    @pytest.mark.parametrize("field", ["password", "api_key", "token", "secret", "pasword"])
    async def test_by_routes_that_take_none(self, client: httpx2.AsyncClient, path: str, field: str) -> None:
        response = await client.post(f"{API}/{path}", json={"name": "Agent", field: VALUE})
        assert f"/body/{field}" in pointers(response)
        assert VALUE not in response.text

    async def test_where_an_api_key_stands_in_the_wrong_place(
        self, client: httpx2.AsyncClient, member: Member
    ) -> None:
        for response in (
            await client.get(f"{API}/agents/{member.key}"),
            await client.get(f"{API}/nothing/{member.key}"),
            await client.get(f"{API}/agents", headers={"X-Project-Id": member.key}),
            await client.get(f"{API}/runs", params={"agent": member.key}),
            await client.post(f"{API}/agents", json={"name": "Agent", "slug": member.key}),
        ):
            assert response.status_code in (404, 422)
            assert member.key not in response.text
            assert "orr_…" in response.text

    async def test_while_other_wrong_values_are(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents", params={"limit": "many"})
        assert "got 'many'" in problem(response, 422, "invalid")["detail"]


class TestRead:
    async def test_shows_no_value_anywhere(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client)
        for path in ("", f"/{made['id']}", f"/{made['name']}"):
            response = await client.get(f"{API}/secrets{path}")
            assert response.status_code == 200
            assert made["name"] in response.text
            assert VALUE not in response.text

    async def test_of_another_name_is_404(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/secrets/nobody"), 404, "not_found")


class TestReplace:
    async def test_changes_the_value_that_services_see(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        made = await new_secret(client)
        answer = ok(await client.put(f"{API}/secrets/{made['name']}/value", json={"value": "new"}))
        secrets = server.resources.secrets(member.tenant)
        assert (await secrets.reveal(made["name"])).get_secret_value() == "new"
        assert answer["value_changed_at"] > made["value_changed_at"]
        assert answer["hint"] is None

    async def test_of_another_revision_keeps_the_value(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client)
        path = f"{API}/secrets/{made['id']}"
        etag = (await client.get(path)).headers["ETag"]
        first = await client.put(f"{path}/value", json={"value": "mine"}, headers={"If-Match": etag})
        assert (ok(first)["revision"], first.headers["ETag"] != etag) == (2, True)
        second = await client.put(f"{path}/value", json={"value": "yours"}, headers={"If-Match": etag})
        problem(second, 412, "precondition_failed")
        assert ok(await client.get(path))["value_changed_at"] == first.json()["value_changed_at"]

    async def test_leaves_the_description(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client, description="Forecasts")
        answer = ok(await client.put(f"{API}/secrets/{made['id']}/value", json={"value": "new"}))
        assert answer["description"] == "Forecasts"


class TestUpdate:
    async def test_changes_the_description_only(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        made = await new_secret(client)
        answer = ok(await client.patch(f"{API}/secrets/{made['id']}", json={"description": "Rain"}))
        changed = {"description": "Rain", "revision": 2, "updated_at": answer["updated_at"]}
        assert answer == made | changed
        secrets = server.resources.secrets(member.tenant)
        assert (await secrets.reveal(made["name"])).get_secret_value() == VALUE

    async def test_of_nothing_keeps_the_description(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client, description="Forecasts")
        answer = ok(await client.patch(f"{API}/secrets/{made['id']}", json={}))
        assert answer["description"] == "Forecasts"

    async def test_takes_no_value(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client)
        response = await client.patch(f"{API}/secrets/{made['id']}", json={"value": VALUE})
        assert pointers(response) == ["/body/value"]
        assert VALUE not in response.text


class TestDelete:
    async def test_frees_the_name(self, client: httpx2.AsyncClient) -> None:
        made = await new_secret(client)
        assert (await client.delete(f"{API}/secrets/{made['name']}")).status_code == 204
        problem(await client.get(f"{API}/secrets/{made['id']}"), 404, "not_found")
        await new_secret(client, name=made["name"])


class TestPermissions:
    async def test_let_members_see_names_but_set_nothing(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        made = await new_secret(client)
        plain = await make.member(role=Role.MEMBER, of=member.tenant)
        async with http_client(server, plain.key) as caller:
            ok(await caller.get(f"{API}/secrets/{made['id']}"))
            body = {"name": "other", "value": VALUE}
            problem(await caller.post(f"{API}/secrets", json=body), 403, "forbidden")

    async def test_show_viewers_nothing(self, server: Running, make: Factory, member: Member) -> None:
        viewer = await make.member(role=Role.VIEWER, of=member.tenant)
        async with http_client(server, viewer.key) as caller:
            problem(await caller.get(f"{API}/secrets"), 403, "forbidden")
