"""Versions over HTTP: who published them, brought back, compared; and agents in the archive."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from app.db.postgres.models.identity import Role
from tests.api.calls import API, ended, keyed, new_agent, new_collection, next_version, ok, problem, total
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client
from tests.graphs import HELLO_GRAPH, asking_graph, greeting_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def greeted(client: httpx2.AsyncClient, slug: str, **body: Any) -> str:
    """What the agent says to Ada."""
    run = ok(await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}} | body))
    text: str = run["output"]["text"]
    return text


async def versions(client: httpx2.AsyncClient, slug: str) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = ok(await client.get(f"{API}/agents/{slug}/versions"))["items"]
    return items


class TestAuthors:
    async def test_are_named_to_whoever_may_know_people(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        colleague = await make.person(role=Role.MEMBER, of=member.tenant)
        key = await make.key(Member(colleague.user_id, member.tenant, ""))
        async with http_client(server, key.key) as other:
            slug = await new_agent(other)
        (version,) = await versions(client, slug)
        assert version["author"] == {
            "id": str(colleague.user_id),
            "kind": "user",
            "name": None,
            "email": colleague.email,
        }

    async def test_are_ids_to_others(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        slug = await new_agent(client)
        reader = await make.key(member, permissions=["agents:read"])
        async with http_client(server, reader.key) as other:
            found = ok(await other.get(f"{API}/agents/{slug}/versions/1"))
        assert found["author"] == {"id": str(member.user_id), "kind": "user", "name": None, "email": None}


class TestRollback:
    async def test_makes_the_old_version_live_as_a_new_one(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        await next_version(client, slug, "Bye!")
        made = ok(await client.post(f"{API}/agents/{slug}/rollback", json={"version": 1}), 201)
        first = ok(await client.get(f"{API}/agents/{slug}/versions/1"))
        assert (made["version"], made["restores"], made["note"]) == (3, 1, "Rollback to version 1")
        assert [made[key] == first[key] for key in ("graph", "content_hash", "bindings")] == [True] * 3
        assert await greeted(client, slug) == "Hello, Ada!"

    async def test_tells_who_and_why_in_the_list(self, client: httpx2.AsyncClient, member: Member) -> None:
        slug = await new_agent(client)
        await next_version(client, slug, "Bye!")
        body = {"version": 1, "note": "People left"}
        ok(await client.post(f"{API}/agents/{slug}/rollback", json=body), 201)
        newest = (await versions(client, slug))[0]
        assert (newest["note"], newest["restores"]) == ("People left", 1)
        assert newest["author"]["id"] == str(member.user_id)

    async def test_leaves_the_draft(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        await next_version(client, slug, "Bye!")
        ok(await client.post(f"{API}/agents/{slug}/rollback", json={"version": 1}), 201)
        assert ok(await client.get(f"{API}/agents/{slug}"))["draft"] == greeting_graph("Bye!")

    async def test_to_what_is_live_does_nothing(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        assert ok(await client.post(f"{API}/agents/{slug}/rollback", json={"version": 1}))["version"] == 1
        assert await total(client, f"agents/{slug}/versions") == 1

    async def test_to_no_version_is_404(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        problem(await client.post(f"{API}/agents/{slug}/rollback", json={"version": 7}), 404, "not_found")

    async def test_to_what_needs_something_gone_is_refused_with_the_report(
        self, client: httpx2.AsyncClient
    ) -> None:
        collection = await new_collection(client)
        slug = await new_agent(client, asking_graph("default-chat", collection=collection))
        await next_version(client, slug, "Bye!")
        await client.delete(f"{API}/collections/{collection}")
        response = await client.post(f"{API}/agents/{slug}/rollback", json={"version": 1})
        (error,) = problem(response, 422, "invalid_graph")["errors"]
        assert error["pointer"] == "/bindings/collections/kb"
        assert collection in error["message"]
        assert ok(await client.get(f"{API}/agents/{slug}"))["live_version"] == 2

    async def test_to_what_was_made_anew_takes_that(self, client: httpx2.AsyncClient) -> None:
        collection = await new_collection(client)
        slug = await new_agent(client, asking_graph("default-chat", collection=collection))
        await next_version(client, slug, "Bye!")
        await client.delete(f"{API}/collections/{collection}")
        again = ok(await client.post(f"{API}/collections", json={"name": "Shelf", "slug": collection}), 201)
        made = ok(await client.post(f"{API}/agents/{slug}/rollback", json={"version": 1}), 201)
        assert made["bindings"]["collections"] == {"kb": again["id"]}

    async def test_of_another_revision_is_refused(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        headers = {"If-Match": '"7"'}
        response = await client.post(f"{API}/agents/{slug}/rollback", json={"version": 1}, headers=headers)
        problem(response, 412, "precondition_failed")

    async def test_with_a_key_happens_once(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        await next_version(client, slug, "Bye!")
        path, headers = f"{API}/agents/{slug}/rollback", keyed()
        answers = [await client.post(path, json={"version": 1}, headers=headers) for _ in range(2)]
        assert answers[0].text == answers[1].text
        assert await total(client, f"agents/{slug}/versions") == 3


class TestArchive:
    async def test_is_hidden_from_the_list_unless_asked_for(self, client: httpx2.AsyncClient) -> None:
        kept, away = await new_agent(client), await new_agent(client)
        assert ok(await client.post(f"{API}/agents/{away}/archive"))["archived_at"]
        shown = {}
        for archived in (None, "true", "false", "any"):
            query = {"archived": archived} if archived else {}
            items = ok(await client.get(f"{API}/agents", params=query))["items"]
            shown[archived] = {agent["slug"] for agent in items}
        assert shown == {None: {kept}, "true": {away}, "false": {kept}, "any": {kept, away}}

    @pytest.mark.parametrize(
        ("method", "path", "body"),
        [
            ("PATCH", "", {"name": "New"}),
            ("POST", "/publish", {}),
            ("POST", "/rollback", {"version": 1}),
            ("POST", "/runs", {"input": {"name": "Ada"}}),
            ("POST", "/runs", {"input": {"name": "Ada"}, "version": 1, "mode": "background"}),
            ("POST", "/runs", {"input": {"name": "Ada"}, "version": "draft"}),
        ],
    )
    async def test_refuses(
        self, client: httpx2.AsyncClient, method: str, path: str, body: dict[str, Any]
    ) -> None:
        slug = await new_agent(client)
        ok(await client.post(f"{API}/agents/{slug}/archive"))
        response = await client.request(method, f"{API}/agents/{slug}{path}", json=body)
        assert "unarchive" in problem(response, 409, "archived")["detail"]

    async def test_refuses_an_import_over_it(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        document = ok(await client.get(f"{API}/agents/{slug}/export"))
        ok(await client.post(f"{API}/agents/{slug}/archive"))
        body = {"document": document, "on_conflict": "update"}
        problem(await client.post(f"{API}/agents/import", json=body), 409, "archived")

    async def test_keeps_versions_and_runs_readable(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}}))
        ok(await client.post(f"{API}/agents/{slug}/archive"))
        assert len(await versions(client, slug)) == 1
        assert ok(await client.get(f"{API}/runs/{run['id']}"))["output"] == {"text": "Hello, Ada!"}
        assert ok(await client.get(f"{API}/agents/{slug}/export"))["slug"] == slug

    async def test_lets_runs_go_on(self, client: httpx2.AsyncClient, make: Factory, member: Member) -> None:
        gate = await make.gate(member)
        slug = await new_agent(client, asking_graph(gate.slug))
        body = {"input": {"name": "Ada"}, "wait_timeout_s": 0.01}
        run = ok(await client.post(f"{API}/agents/{slug}/runs", json=body), 202)
        ok(await client.post(f"{API}/agents/{slug}/archive"))
        gate.opened.set()
        assert (await ended(client, run["id"]))["status"] == "succeeded"

    async def test_ends_as_it_began(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        ok(await client.post(f"{API}/agents/{slug}/archive"))
        again = ok(await client.post(f"{API}/agents/{slug}/unarchive"))
        assert (again["archived_at"], again["live_version"]) == (None, 1)
        assert await greeted(client, slug) == "Hello, Ada!"

    @pytest.mark.parametrize("verb", ["archive", "unarchive"])
    async def test_once_more_changes_nothing(self, client: httpx2.AsyncClient, verb: str) -> None:
        slug = await new_agent(client)
        first = ok(await client.post(f"{API}/agents/{slug}/{verb}"))
        assert ok(await client.post(f"{API}/agents/{slug}/{verb}")) == first

    async def test_keeps_its_slug(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        ok(await client.post(f"{API}/agents/{slug}/archive"))
        problem(await client.post(f"{API}/agents", json={"name": "N", "slug": slug}), 409, "duplicate")


class TestDiff:
    async def test_is_by_default_what_publishing_would_change(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": greeting_graph("Bye!")}))
        told = ok(await client.get(f"{API}/agents/{slug}/diff"))
        assert (told["from"]["version"], told["to"]) == (1, {"version": None, "id": None})
        assert told["summary"] == ['~ node greet: config/text "Hello, {{ inputs.name }}!" → "Bye!"']
        assert told["changes"][0]["edits"][0]["pointer"] == "/config/text"

    async def test_goes_between_any_two_versions(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        second = await next_version(client, slug, "Bye!")
        for names in (("2", "1"), (second["id"], "1"), ("live", "1"), ("draft", "1")):
            query = dict(zip(("from", "to"), names, strict=True))
            told = ok(await client.get(f"{API}/agents/{slug}/diff", params=query))
            assert told["changes"][0]["edits"][0]["before"] == "Bye!"

    async def test_does_not_tell_of_defaults_that_are_written_out(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        spelt = HELLO_GRAPH | {"durability": "step", "state": {}}
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": spelt}))
        assert ok(await client.get(f"{API}/agents/{slug}/diff"))["identical"]

    async def test_of_unfinished_graphs_is_told_too(self, client: httpx2.AsyncClient) -> None:
        body = {"from": {"nodes": [{"id": "a"}]}, "to": {"nodes": [{"id": "b", "type": "telepathy"}]}}
        told = ok(await client.post(f"{API}/agents/diff", json=body))
        assert told["summary"] == ["- node a (None)", "+ node b (telepathy)"]

    async def test_of_too_large_a_graph_is_refused(self, client: httpx2.AsyncClient) -> None:
        body = {"from": {}, "to": {"layout": {"x": [0] * 100_001}}}
        problem(await client.post(f"{API}/agents/diff", json=body), 422, "invalid_graph")

    async def test_from_live_of_an_unpublished_agent_says_what_to_do(
        self, client: httpx2.AsyncClient
    ) -> None:
        slug = await new_agent(client, publish=False)
        problem(await client.get(f"{API}/agents/{slug}/diff"), 409, "not_published")

    @pytest.mark.parametrize("name", ["9", "newest", "0", "²", "-1"])
    async def test_of_no_version_is_404(self, client: httpx2.AsyncClient, name: str) -> None:
        slug = await new_agent(client)
        problem(await client.get(f"{API}/agents/{slug}/diff", params={"to": name}), 404, "not_found")
