"""Projects over HTTP: made, changed, seen by those who may, deleted when they are empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from app.core.ids import new_id
from app.db.base import ProjectRow
from app.db.postgres.models.agents import AgentRun, AgentRunInterrupt
from app.db.postgres.models.jobs import Job
from app.db.postgres.models.node_cache import CachedNode
from app.db.postgres.models.rag import RAGPipeline
from app.db.postgres.repositories.identity import HELD
from tests.api.calls import API, add_texts, new_agent, new_collection, ok, pointers, problem, work
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def everywhere(server: Running, make: Factory, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    """Calls the server with a key of the whole organization."""
    async with http_client(server, (await make.key(member, unbound=True)).key) as client:
        yield client


async def new_project(client: httpx2.AsyncClient) -> str:
    """The slug of a fresh project."""
    slug = f"room-{new_id().hex[-12:]}"
    ok(await client.post(f"{API}/projects", json={"name": "Room", "slug": slug}), 201)
    return slug


class TestCreate:
    async def test_answers_the_project(self, everywhere: httpx2.AsyncClient) -> None:
        body = {"name": "Support Team", "settings": {"contact": "team@example.test"}}
        project = ok(await everywhere.post(f"{API}/projects", json=body), 201)
        assert (project["slug"], project["revision"]) == ("support-team", 1)
        assert project["settings"] == body["settings"]

    async def test_makes_a_place_to_work_in(self, everywhere: httpx2.AsyncClient) -> None:
        everywhere.headers["X-Project-Id"] = await new_project(everywhere)
        slug = await new_agent(everywhere)
        assert ok(await everywhere.get(f"{API}/agents"))["items"][0]["slug"] == slug

    async def test_refuses_a_slug_that_is_taken(self, everywhere: httpx2.AsyncClient) -> None:
        response = await everywhere.post(f"{API}/projects", json={"name": "Again", "slug": "default"})
        problem(response, 409, "duplicate")

    async def test_is_not_for_keys_of_one_project(self, client: httpx2.AsyncClient) -> None:
        refused = problem(await client.post(f"{API}/projects", json={"name": "Mine"}), 400, "project_bound")
        assert "`orrery users set-password EMAIL`" in refused["detail"]
        assert f"POST {API}/auth/login" in refused["detail"]

    async def test_is_not_for_members(self, server: Running, make: Factory, member: Member) -> None:
        narrowed = await make.key(member, unbound=True, permissions=["projects:read"])
        async with http_client(server, narrowed.key) as client:
            problem(await client.post(f"{API}/projects", json={"name": "Mine"}), 403, "forbidden")


class TestRead:
    async def test_finds_by_id_and_by_slug(self, everywhere: httpx2.AsyncClient) -> None:
        by_slug = ok(await everywhere.get(f"{API}/projects/default"))
        assert ok(await everywhere.get(f"{API}/projects/{by_slug['id']}")) == by_slug

    async def test_with_a_key_of_one_project_shows_only_that(
        self, client: httpx2.AsyncClient, everywhere: httpx2.AsyncClient
    ) -> None:
        other = await new_project(everywhere)
        assert [row["slug"] for row in ok(await client.get(f"{API}/projects"))["items"]] == ["default"]
        assert ok(await client.get(f"{API}/projects/default"))["slug"] == "default"
        for method in ("GET", "PATCH", "DELETE"):
            body = {"json": {"name": "Mine"}} if method == "PATCH" else {}
            problem(await client.request(method, f"{API}/projects/{other}", **body), 404, "not_found")

    async def test_lists_all_of_the_organization(self, everywhere: httpx2.AsyncClient) -> None:
        slug = await new_project(everywhere)
        projects = ok(await everywhere.get(f"{API}/projects", params={"count": True}))
        assert [row["slug"] for row in projects["items"]] == [slug, "default"]
        assert projects["total"] == 2

    async def test_of_what_is_not_there_is_404(self, everywhere: httpx2.AsyncClient) -> None:
        for reference in ("nowhere", str(new_id())):
            problem(await everywhere.get(f"{API}/projects/{reference}"), 404, "not_found")


class TestUpdate:
    async def test_merges_settings(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/projects/default"
        ok(await client.patch(path, json={"settings": {"a": {"b": 1, "c": 2}, "d": 3}}))
        patch = {"name": "Renamed", "settings": {"a": {"b": None, "e": 4}, "d": None}}
        project = ok(await client.patch(path, json=patch))
        assert (project["name"], project["settings"]) == ("Renamed", {"a": {"c": 2, "e": 4}})
        assert ok(await client.get(path)) == project

    async def test_with_null_empties_the_settings(self, client: httpx2.AsyncClient) -> None:
        ok(await client.patch(f"{API}/projects/default", json={"settings": {"a": 1}}))
        assert ok(await client.patch(f"{API}/projects/default", json={"settings": None}))["settings"] == {}

    async def test_refuses_null_for_the_name(self, client: httpx2.AsyncClient) -> None:
        assert pointers(await client.patch(f"{API}/projects/default", json={"name": None})) == ["/body/name"]


class TestDelete:
    async def test_knows_of_everything_that_a_project_can_hold(self) -> None:
        """A new table of projects must be said to hold one, or to go with it (runs go with their agents)."""
        goes_along = {CachedNode, Job, RAGPipeline, AgentRun, AgentRunInterrupt}
        assert set(ProjectRow.__subclasses__()) - goes_along <= set(HELD.values())

    async def test_of_an_empty_project_frees_its_slug(self, everywhere: httpx2.AsyncClient) -> None:
        slug = await new_project(everywhere)
        assert (await everywhere.delete(f"{API}/projects/{slug}")).status_code == 204
        problem(await everywhere.get(f"{API}/projects/{slug}"), 404, "not_found")
        ok(await everywhere.post(f"{API}/projects", json={"name": "Room", "slug": slug}), 201)

    async def test_is_refused_with_what_is_in_it(self, everywhere: httpx2.AsyncClient) -> None:
        slug = await new_project(everywhere)
        inside = {"X-Project-Id": slug}
        ok(await everywhere.post(f"{API}/auth/api-keys", json={"name": "Key", "project": slug}), 201)
        for path in ("agents", "collections"):
            ok(await everywhere.post(f"{API}/{path}", json={"name": "Thing"}, headers=inside), 201)
        detail = problem(await everywhere.delete(f"{API}/projects/{slug}"), 409, "project_not_empty")[
            "detail"
        ]
        assert "1 agents, 1 collections, 1 API keys" in detail
        assert ok(await everywhere.get(f"{API}/projects/{slug}"))["slug"] == slug

    async def test_waits_until_what_was_in_it_is_erased(
        self, server: Running, everywhere: httpx2.AsyncClient
    ) -> None:
        slug = await new_project(everywhere)
        everywhere.headers["X-Project-Id"] = slug
        collection, agent = await new_collection(everywhere), await new_agent(everywhere)
        await add_texts(everywhere, collection, {"title": "A", "text": "A."})
        ok(await everywhere.delete(f"{API}/collections/{collection}"), 202)
        assert (await everywhere.delete(f"{API}/agents/{agent}")).status_code == 204
        problem(await everywhere.delete(f"{API}/projects/{slug}"), 409, "project_not_empty")
        async with asyncio.timeout(60):
            while (await everywhere.delete(f"{API}/projects/{slug}")).status_code != 204:
                await work(server)
                await asyncio.sleep(0.1)

    async def test_while_something_is_put_into_it_ends_one_way_or_the_other(
        self, everywhere: httpx2.AsyncClient
    ) -> None:
        for number in range(5):
            slug = await new_project(everywhere)
            inside = {"X-Project-Id": slug}
            made, deleted = await asyncio.gather(
                everywhere.post(f"{API}/agents", json={"name": f"Agent {number}"}, headers=inside),
                everywhere.delete(f"{API}/projects/{slug}"),
            )
            outcome = (made.status_code, deleted.status_code)
            assert outcome in {(201, 409), (404, 204), (409, 204)}, (made.text, deleted.text)
