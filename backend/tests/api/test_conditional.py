"""Conditional requests, held against everything that people edit."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from app.core.ids import new_id
from tests.api.calls import API, add_texts, new_agent, new_collection, ok, pointers, problem
from tests.api.operations import OURS
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

EDITED = {
    "agent": "name",
    "collection": "name",
    "connection": "description",
    "document_id": "title",
    "model": "description",
    "project": "name",
    "secret": "description",
    "tool": "description",
}
"""Path parameters of what can be edited, and a field of it."""

_MADE: dict[str, tuple[str, dict[str, Any]]] = {
    "connection": ("model-connections", {"base_url": "https://models.example/v1", "api_key": "sk-1"}),
    "model": ("models", {"model": "extractive"}),
    "secret": ("secrets", {"value": "v"}),
    "tool": ("tools", {"config": {"kind": "builtin", "function": "calculator"}}),
}
"""Where such a thing is made, and of what besides its name."""

each = pytest.mark.parametrize("kind", EDITED)


@dataclass(frozen=True, slots=True)
class Edited:
    """One resource, with a field to change."""

    client: httpx2.AsyncClient
    path: str
    field: str

    async def get(self, **headers: str) -> httpx2.Response:
        return await self.client.get(self.path, headers=_headers(headers))

    async def patch(self, value: Any, **headers: str) -> httpx2.Response:
        return await self.client.patch(self.path, json={self.field: value}, headers=_headers(headers))

    async def delete(self, **headers: str) -> httpx2.Response:
        return await self.client.delete(self.path, headers=_headers(headers))


def _headers(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


async def edited(client: httpx2.AsyncClient, kind: str) -> Edited:
    if kind == "agent":
        path = f"agents/{await new_agent(client, publish=False)}"
    elif kind == "project":
        path = "projects/default"
    elif kind in _MADE:
        path, body = _MADE[kind]
        name = {"name" if kind == "secret" else "slug": f"s-{new_id().hex[-12:]}"}
        path += f"/{ok(await client.post(f'{API}/{path}', json=body | name), 201)['id']}"
    else:
        path = f"collections/{await new_collection(client)}"
        if kind == "document_id":
            taken = await add_texts(client, path.partition("/")[2], {"title": "Title", "text": "Text."})
            path = f"documents/{taken['items'][0]['document_id']}"
    return Edited(client, f"{API}/{path}", EDITED[kind])


class TestRoutes:
    async def test_that_patch_are_all_here(self) -> None:
        patched = {operation.parameters[-1] for operation in OURS if operation.method == "PATCH"}
        assert patched == set(EDITED)

    @pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
    async def test_that_write_what_has_an_etag_take_if_match(self, method: str) -> None:
        edited = {o.path for o in OURS if o.method == "PATCH"}
        writing = {o for o in OURS if o.method == method and _resource(o.path) in edited}
        guarded = {o for o in OURS if o.method == method and "if-match" in o.names("header")}
        assert guarded == writing
        assert method == "PUT" or {o.path for o in writing} == edited


def _resource(path: str) -> str:
    """The path up to its last parameter."""
    return path[: path.rindex("}") + 1] if "}" in path else path


class TestIfMatch:
    @each
    async def test_with_the_etag_of_the_answer_succeeds(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        first = await thing.patch("New", If_Match=(await thing.get()).headers["ETag"])
        assert first.is_success
        assert (await thing.patch("Newer", If_Match=first.headers["ETag"])).is_success

    @each
    async def test_takes_the_revision_alone_or_among_others(
        self, client: httpx2.AsyncClient, kind: str
    ) -> None:
        thing = await edited(client, kind)
        revision = ok(await thing.get())["revision"]
        assert (await thing.patch("New", If_Match=f'"{revision}"')).is_success
        assert (await thing.patch("Newer", If_Match=f'"99", W/"{revision + 1}"')).is_success
        assert (await thing.patch("Newest", If_Match="*")).is_success

    @each
    async def test_of_another_revision_changes_nothing_and_names_both(
        self, client: httpx2.AsyncClient, kind: str
    ) -> None:
        thing = await edited(client, kind)
        etag = (await thing.get()).headers["ETag"]
        before = (await thing.patch("Mine")).json()
        detail = problem(await thing.patch("Yours", If_Match=etag), 412, "precondition_failed")["detail"]
        assert f"revision {before['revision']}, not {before['revision'] - 1}" in detail
        assert ok(await thing.get())[thing.field] == "Mine"

    @each
    async def test_missing_lets_the_last_one_win(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        before = ok(await thing.get())["revision"]
        for value in ("One", "Two"):
            assert (await thing.patch(value)).is_success
        after = ok(await thing.get())
        assert (after[thing.field], after["revision"]) == ("Two", before + 2)

    @each
    async def test_at_the_same_time_lets_one_win(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        etag = (await thing.get()).headers["ETag"]
        answers = await asyncio.gather(*(thing.patch(f"N{n}", If_Match=etag) for n in range(5)))
        assert sorted(answer.status_code < 300 for answer in answers) == [False] * 4 + [True]

    @each
    @pytest.mark.parametrize("value", ["yesterday", '"1', "", '"1" "2"', ","])
    async def test_that_is_no_etag_is_refused(
        self, client: httpx2.AsyncClient, kind: str, value: str
    ) -> None:
        problem(await (await edited(client, kind)).patch("New", If_Match=value), 400, "bad_request")

    async def test_of_somebody_elses_etag_fails(self, client: httpx2.AsyncClient) -> None:
        thing = await edited(client, "agent")
        for value in ('"abc"', '""', f'"{"9" * 30}"', '"0"', '"-1"'):
            problem(await thing.patch("New", If_Match=value), 412, "precondition_failed")


class TestIfMatchOfDelete:
    @each
    async def test_of_another_revision_deletes_nothing(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        old = (await thing.get()).headers["ETag"]
        assert (await thing.patch("Mine")).is_success
        problem(await thing.delete(If_Match=old), 412, "precondition_failed")
        assert ok(await thing.get())[thing.field] == "Mine"

    @each
    async def test_that_is_no_etag_is_refused(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        detail = problem(await thing.delete(If_Match="yesterday"), 400, "bad_request")["detail"]
        assert '"1-5f7464f2d26251ec"' in detail
        ok(await thing.get())

    @pytest.mark.parametrize("kind", sorted(EDITED.keys() - {"project"}))
    async def test_with_the_current_etag_deletes(self, client: httpx2.AsyncClient, kind: str) -> None:
        await self.deletes(await edited(client, kind))

    async def test_with_the_current_etag_deletes_an_empty_project(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        whole = await make.key(member, unbound=True)
        async with http_client(server, whole.key) as client:
            made = ok(await client.post(f"{API}/projects", json={"name": "Room"}), 201)
            await self.deletes(Edited(client, f"{API}/projects/{made['id']}", "name"))

    async def deletes(self, thing: Edited) -> None:
        answer = await thing.delete(If_Match=(await thing.get()).headers["ETag"])
        assert answer.status_code in (202, 204)
        problem(await thing.get(), 404, "not_found")

    @each
    async def test_at_the_same_time_as_a_change_lets_one_win(
        self, client: httpx2.AsyncClient, kind: str
    ) -> None:
        thing = await edited(client, kind)
        etag = (await thing.get()).headers["ETag"]
        changed, deleted = await asyncio.gather(
            thing.patch("New", If_Match=etag), thing.delete(If_Match=etag)
        )
        assert deleted.status_code == 412 if changed.is_success else changed.status_code == 404


class TestIfNoneMatch:
    @each
    async def test_with_the_current_etag_is_answered_without_a_body(
        self, client: httpx2.AsyncClient, kind: str
    ) -> None:
        thing = await edited(client, kind)
        etag = (await thing.get()).headers["ETag"]
        for known in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            answer = await thing.get(If_None_Match=known)
            assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", etag)

    @each
    async def test_with_another_etag_is_answered_in_full(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        etag = (await thing.get()).headers["ETag"]
        assert (await thing.patch("New")).is_success
        answer = await thing.get(If_None_Match=etag)
        assert ok(answer)[thing.field] == "New"
        assert answer.headers["ETag"] != etag

    async def test_sees_what_changes_without_a_revision(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        thing = Edited(client, f"{API}/collections/{slug}", "name")
        etag = (await thing.get()).headers["ETag"]
        await add_texts(client, slug, {"title": "Title", "text": "Text."})
        assert ok(await thing.get(If_None_Match=etag))["documents"] == {"accepted": 1}


class TestMergePatch:
    @each
    async def test_changes_only_what_is_sent(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        before = ok(await thing.get())
        after = (await thing.patch(before[thing.field])).json()
        moving = {"revision", "updated_at"}
        assert {k: v for k, v in after.items() if k not in moving} == {
            k: v for k, v in before.items() if k not in moving
        }

    @pytest.mark.parametrize("kind", sorted(EDITED.keys() - _MADE.keys()))
    async def test_refuses_null_where_something_must_be(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        assert pointers(await thing.patch(None)) == [f"/body/{thing.field}"]

    @each
    async def test_refuses_unknown_fields(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        response = await client.patch(thing.path, json={"colour": "red", "slug": "other"})
        assert pointers(response) == ["/body/colour", "/body/slug"]

    @pytest.mark.parametrize("kind", ["agent", "collection", *_MADE])
    async def test_with_null_empties_a_description(self, client: httpx2.AsyncClient, kind: str) -> None:
        thing = await edited(client, kind)
        ok(await client.patch(thing.path, json={"description": "Some"}))
        assert ok(await client.patch(thing.path, json={"description": None}))["description"] == ""
