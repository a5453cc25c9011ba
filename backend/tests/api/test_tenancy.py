"""What belongs to somebody else answers exactly like what is not there, on every route there is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from fastapi.routing import iter_route_contexts

from app.core.config import Settings
from app.core.ids import new_id
from main import create_app
from tests.api.calls import API, add_texts, new_agent, new_collection, ok, work
from tests.conftest import Running, http_client
from tests.factories import Factory, Member

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODIES: dict[str, dict[str, Any]] = {
    "agents_update": {"json": {"name": "Stolen"}},
    "runs_create": {"json": {"input": {"name": "Eve"}}},
    "documents_upload": {"files": [("files", ("planted.txt", b"Planted."))]},
    "documents_add_text": {"json": {"items": [{"title": "Planted", "text": "Planted."}]}},
}
"""What a route needs besides its path to get as far as looking for the resource."""

_VARYING = {"date", "x-request-id", "content-length"}


@dataclass(frozen=True, slots=True)
class Call:
    """One route with ids in its path."""

    operation: str
    method: str
    path: str

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    async def answer(self, client: httpx2.AsyncClient, values: dict[str, str]) -> tuple[Any, ...]:
        """Status, headers and body, with what must differ between two requests left out."""
        response = await client.request(
            self.method, self.path.format_map(values), **BODIES.get(self.operation, {})
        )
        body = re.sub(r'"request_id":"\w+"', "", response.text)
        for name, value in values.items():
            body = body.replace(value, f"<{name}>")
        headers = {name: value for name, value in response.headers.items() if name not in _VARYING}
        return response.status_code, headers, body


def calls() -> Iterator[Call]:
    """From the router's table, so that a new route is in it by itself."""
    for context in iter_route_contexts(create_app(Settings(_env_file=None)).routes):
        path = context.path or ""
        if path.startswith(API) and "{" in path:
            for method in context.methods or ():
                yield Call(str(context.operation_id), method, path)


CALLS = list(calls())


@dataclass(slots=True)
class Treasure:
    """One of everything that a project can own; `ids` by the name of the path parameter."""

    owner: Member
    ids: dict[str, str]
    slugs: dict[str, str] = field(default_factory=dict)

    async def snapshot(self, client: httpx2.AsyncClient) -> list[Any]:
        """All of it, as its owner sees it."""
        keys = ok(await client.get(f"{API}/auth/api-keys"))["items"]
        return [{"keys": {key["id"] for key in keys}}] + [
            ok(await client.get(call.path.format_map(self.ids)))
            for call in CALLS
            if call.method == "GET" and call.operation not in ("runs_events", "documents_original")
        ]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def treasure(server: Running) -> Treasure:
    owner = await Factory(server.resources).member()
    async with http_client(server, owner.key) as client:
        agent, collection = await new_agent(client), await new_collection(client)
        run = ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {"name": "Ada"}}))
        taken = await add_texts(client, collection, {"title": "Map", "text": "The gold is on the island."})
        await work(server)
        key = ok(await client.post(f"{API}/auth/api-keys", json={"name": "Spare"}), 201)
        ids = {
            "agent": run["agent_id"],
            "run_id": run["id"],
            "collection": ok(await client.get(f"{API}/collections/{collection}"))["id"],
            "document_id": taken["items"][0]["document_id"],
            "job_id": taken["job_id"],
            "key_id": key["id"],
        }
    return Treasure(owner, ids, {"agent": agent, "collection": collection})


@pytest_asyncio.fixture(loop_scope="session", params=["another organization", "another project"])
async def stranger(
    request: pytest.FixtureRequest, server: Running, make: Factory, treasure: Treasure
) -> httpx2.AsyncClient:
    """Somebody who may do everything, but elsewhere."""
    if request.param == "another organization":
        return http_client(server, (await make.member()).key)
    second = await make.project(treasure.owner, slug=f"p-{new_id().hex[-12:]}")
    client = http_client(server, (await make.key(treasure.owner, unbound=True)).key)
    client.headers["X-Project-Id"] = str(second.project_id)
    return client


class TestForeignIds:
    @pytest.mark.parametrize("call", CALLS, ids=lambda call: call.operation)
    async def test_answer_like_missing_ones(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, call: Call
    ) -> None:
        missing = {name: str(new_id()) for name in treasure.ids}
        async with stranger:
            theirs = await call.answer(stranger, treasure.ids)
            assert theirs == await call.answer(stranger, missing)
        assert theirs[0] == 404

    @pytest.mark.parametrize(
        "call",
        [c for c in CALLS if {"agent", "collection"} & set(c.parameters)],
        ids=lambda call: call.operation,
    )
    async def test_are_not_found_by_slug_either(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, call: Call
    ) -> None:
        missing = {name: f"none-{new_id().hex[-12:]}" for name in treasure.slugs}
        async with stranger:
            theirs = await call.answer(stranger, treasure.slugs)
            assert theirs == await call.answer(stranger, missing)
        assert theirs[0] == 404

    async def test_leave_everything_as_it_was(
        self, server: Running, stranger: httpx2.AsyncClient, treasure: Treasure
    ) -> None:
        async with http_client(server, treasure.owner.key) as owner:
            before = await treasure.snapshot(owner)
            assert len(before) >= len(treasure.ids)
            async with stranger:
                for call in CALLS:
                    await call.answer(stranger, treasure.ids)
            assert await treasure.snapshot(owner) == before

    async def test_have_an_example_for_every_parameter(self, treasure: Treasure) -> None:
        assert {name for call in CALLS for name in call.parameters} == set(treasure.ids)


class TestForeignReferences:
    @pytest.mark.parametrize("by", ["ids", "slugs"])
    async def test_in_a_search_answer_like_missing_ones(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, by: str
    ) -> None:
        answers = []
        async with stranger:
            for reference in (getattr(treasure, by)["collection"], str(new_id())):
                body = {"collections": [reference], "query": "gold"}
                response = await stranger.post(f"{API}/search", json=body)
                answers.append((response.status_code, response.json()["detail"].replace(reference, "…")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404

    async def test_in_a_filter_answer_like_missing_ones(
        self, stranger: httpx2.AsyncClient, treasure: Treasure
    ) -> None:
        answers = []
        async with stranger:
            for reference in (treasure.ids["agent"], str(new_id())):
                response = await stranger.get(f"{API}/runs", params={"agent": reference})
                answers.append((response.status_code, response.json()["detail"].replace(reference, "…")))
        assert answers[0] == answers[1]
        assert answers[0][0] == 404

    async def test_in_a_graph_do_not_compile(self, stranger: httpx2.AsyncClient, treasure: Treasure) -> None:
        graph = {
            "schema_version": "1",
            "bindings": {"collections": {"kb": treasure.ids["collection"]}},
            "nodes": [
                {"id": "start", "type": "start"},
                {"id": "search", "type": "retrieve", "config": {"collection": "kb", "query": "gold"}},
                {"id": "done", "type": "end", "config": {"output": {"found": "{{ search.results }}"}}},
            ],
            "edges": [{"source": "start", "target": "search"}, {"source": "search", "target": "done"}],
        }
        async with stranger:
            slug = await new_agent(stranger, graph, publish=False)
            response = await stranger.post(f"{API}/agents/{slug}/publish")
        assert response.status_code == 422
        assert "/bindings/collections/kb" in {error["pointer"] for error in response.json()["errors"]}


class TestLists:
    @pytest.mark.parametrize("path", ["agents", "runs", "collections", "jobs"])
    async def test_show_nothing_of_others(
        self, stranger: httpx2.AsyncClient, treasure: Treasure, path: str
    ) -> None:
        async with stranger:
            assert ok(await stranger.get(f"{API}/{path}")) == {"items": [], "next_cursor": None}

    async def test_of_keys_show_nothing_of_others(
        self, stranger: httpx2.AsyncClient, treasure: Treasure
    ) -> None:
        async with stranger:
            keys = ok(await stranger.get(f"{API}/auth/api-keys"))["items"]
        assert treasure.ids["key_id"] not in {key["id"] for key in keys}

    async def test_cannot_be_paged_into_others(
        self, client: httpx2.AsyncClient, server: Running, treasure: Treasure
    ) -> None:
        async with http_client(server, treasure.owner.key) as owner:
            await new_agent(owner, publish=False)
            cursor = ok(await owner.get(f"{API}/agents", params={"limit": 1}))["next_cursor"]
        assert cursor
        assert ok(await client.get(f"{API}/agents", params={"cursor": cursor}))["items"] == []
