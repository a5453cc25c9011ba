"""Export and import over HTTP: one document that is the same everywhere, and what an import would do."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
import rfc8785
import yaml

from app.core.ids import new_id
from tests.api.calls import API, keyed, new_agent, new_collection, ok, pointers, problem, total
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client
from tests.graphs import HELLO_GRAPH, asking_graph, greeting_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")
CANARY = "sk-canary-5d9e"


async def exported(client: httpx2.AsyncClient, slug: str, **query: str) -> dict[str, Any]:
    return ok(await client.get(f"{API}/agents/{slug}/export", params=query))


async def imported(client: httpx2.AsyncClient, document: Any, /, status: int = 200, **body: Any) -> Any:
    return ok(await client.post(f"{API}/agents/import", json={"document": document} | body), status)


async def foreseen(client: httpx2.AsyncClient, document: Any, /, **body: Any) -> Any:
    path = f"{API}/agents/import"
    return ok(await client.post(path, params={"dry_run": "true"}, json={"document": document} | body))


def portable(graph: dict[str, Any], **fields: Any) -> dict[str, Any]:
    slug = f"agent-{new_id().hex[-12:]}"
    return {"kind": "agent", "schema_version": "1", "slug": slug, "name": "Agent", "graph": graph} | fields


def calling_graph(secret: str) -> dict[str, Any]:
    config = {"url": "https://api.example/", "headers": {"X-Key": {"secret": secret}}}
    start, greet, done = greeting_graph("")["nodes"]
    output = {"config": {"output": {"text": "{{ greet.body }}"}}}
    return HELLO_GRAPH | {"nodes": [start, greet | {"type": "http", "config": config}, done | output]}


class TestExport:
    async def test_is_canonical_json(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        response = await client.get(f"{API}/agents/{slug}/export")
        assert response.content == rfc8785.dumps(response.json())
        assert response.headers["Content-Type"] == "application/json"

    async def test_says_what_the_graph_needs(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate, collection = await make.gate(member), await new_collection(client)
        slug = await new_agent(client, asking_graph(gate.slug, collection=collection))
        assert (await exported(client, slug))["requires"] == {
            "models": {"main": {"target": gate.slug}},
            "collections": {"kb": {"target": collection}},
        }

    async def test_names_by_slug_what_is_bound_by_id(self, client: httpx2.AsyncClient) -> None:
        collection = await new_collection(client)
        collection_id = ok(await client.get(f"{API}/collections/{collection}"))["id"]
        slug = await new_agent(client, asking_graph("default-chat", collection=collection_id))
        document = await exported(client, slug)
        assert document["graph"]["bindings"]["collections"] == {"kb": collection}
        assert collection_id not in str(document)

    async def test_names_secrets_and_never_tells_them(self, client: httpx2.AsyncClient) -> None:
        name = f"s-{new_id().hex[-12:]}"
        secret = ok(await client.post(f"{API}/secrets", json={"name": name, "value": CANARY}), 201)
        for named in (name, secret["id"]):
            slug = await new_agent(client, calling_graph(named))
            response = await client.get(f"{API}/agents/{slug}/export")
            assert ok(response)["requires"] == {"secrets": [name]}
            assert CANARY not in response.text
            assert secret["id"] not in response.text

    async def test_is_by_default_of_what_is_live(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        ok(await client.patch(f"{API}/agents/{slug}", json={"graph": greeting_graph("Bye!")}))
        texts = {
            version: (await exported(client, slug, version=version))["graph"]["nodes"][1]["config"]["text"]
            for version in ("live", "1", "draft")
        }
        assert texts == {
            "live": "Hello, {{ inputs.name }}!",
            "1": "Hello, {{ inputs.name }}!",
            "draft": "Bye!",
        }

    async def test_of_an_unfinished_draft_carries_the_report(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client, {"nodes": 7}, publish=False)
        response = await client.get(f"{API}/agents/{slug}/export", params={"version": "draft"})
        assert "/nodes" in pointers(response, "invalid_graph")

    @pytest.mark.parametrize(
        ("query", "accept"),
        [({"format": "yaml"}, "*/*"), ({}, "application/yaml"), ({"format": "yaml"}, "application/json")],
    )
    async def test_is_yaml_where_that_is_asked_for(
        self, client: httpx2.AsyncClient, query: dict[str, str], accept: str
    ) -> None:
        slug = await new_agent(client)
        path = f"{API}/agents/{slug}/export"
        response = await client.get(path, params=query, headers={"Accept": accept})
        assert response.headers["Content-Type"] == "application/yaml"
        assert response.text.startswith(f"kind: agent\nschema_version: '1'\nslug: {slug}\n")
        assert yaml.safe_load(response.text) == await exported(client, slug)

    async def test_is_json_where_that_is_liked_better(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        for accept in ("application/json, application/yaml", "application/yaml;q=0.1, */*", "*/*"):
            response = await client.get(f"{API}/agents/{slug}/export", headers={"Accept": accept})
            assert response.headers["Content-Type"] == "application/json", accept


class TestRoundTrip:
    @pytest.mark.parametrize("notation", ["json", "yaml"])
    async def test_elsewhere_is_byte_identical(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, notation: str
    ) -> None:
        collection = await new_collection(client)
        graph = asking_graph("default-chat", collection=collection)
        graph |= {"layout": {"ask": {"x": 1.5}}, "durability": "step"}
        slug = await new_agent(client, graph)
        path = f"{API}/agents/{slug}/export?format={notation}"
        first = await client.get(path)
        async with http_client(server, (await make.member()).key) as elsewhere:
            headers = {"Content-Type": first.headers["Content-Type"]}
            done = await elsewhere.post(f"{API}/agents/import", content=first.content, headers=headers)
            ok(done, 201)
            assert (await elsewhere.get(path + "&version=draft")).content == first.content


class TestDryRun:
    async def test_of_something_new_would_create_it(self, client: httpx2.AsyncClient) -> None:
        document = portable(HELLO_GRAPH)
        told = await foreseen(client, document, publish=True)
        assert (told["action"], told["publishes"], told["valid"]) == ("create", True, True)
        problem(await client.get(f"{API}/agents/{document['slug']}"), 404, "not_found")

    async def test_tells_which_bindings_do_not_resolve_and_what_is_there(
        self, client: httpx2.AsyncClient
    ) -> None:
        collection = await new_collection(client)
        told = await foreseen(client, portable(asking_graph("oracle", collection=f"{collection}x")))
        assert told["bindings"] == [
            {
                "kind": "models",
                "name": "main",
                "target": "oracle",
                "resolved": False,
                "suggestions": ["default-chat"],
            },
            {
                "kind": "collections",
                "name": "kb",
                "target": f"{collection}x",
                "resolved": False,
                "suggestions": [collection],
            },
        ]
        assert not told["valid"]
        assert {issue["code"] for issue in told["issues"]} == {"unknown_binding"}

    async def test_suggests_only_models_that_can_do_what_is_needed(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        graph = asking_graph("oracle")
        graph["nodes"][1]["config"]["output_schema"] = {"type": "object", "properties": {}}
        gate = await make.gate(member)
        connection = {"slug": "vendor", "base_url": "https://models.example/v1"}
        able = {"slug": "able", "model": "m", "connection": "vendor"}
        ok(await client.post(f"{API}/model-connections", json=connection), 201)
        config = {"capabilities": ["structured_output"]}
        ok(await client.post(f"{API}/models", json=able | {"config": config}), 201)
        (bound,) = (await foreseen(client, portable(graph)))["bindings"]
        assert "able" in bound["suggestions"]
        assert gate.slug not in bound["suggestions"]

    async def test_over_an_agent_that_is_there_is_a_conflict_or_a_diff(
        self, client: httpx2.AsyncClient
    ) -> None:
        slug = await new_agent(client)
        document = portable(greeting_graph("Bye!"), slug=slug)
        assert (await foreseen(client, document))["action"] == "conflict"
        told = await foreseen(client, document, on_conflict="update")
        assert told["action"] == "update"
        assert told["changes"]["summary"] == [
            '~ node greet: config/text "Hello, {{ inputs.name }}!" → "Bye!"'
        ]
        assert ok(await client.get(f"{API}/agents/{slug}"))["revision"] == 1

    async def test_of_the_same_would_change_nothing(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        told = await foreseen(client, await exported(client, slug), on_conflict="update", publish=True)
        assert (told["action"], told["publishes"], told["changes"]["identical"]) == ("unchanged", False, True)

    async def test_needs_the_permission_to_write(
        self, server: Running, make: Factory, member: Member
    ) -> None:
        reader = await make.key(member, permissions=["agents:read"])
        async with http_client(server, reader.key) as client:
            body = {"document": portable(HELLO_GRAPH)}
            problem(await client.post(f"{API}/agents/import?dry_run=true", json=body), 403, "forbidden")


class TestImport:
    async def test_creates_a_draft(self, client: httpx2.AsyncClient) -> None:
        document = portable(HELLO_GRAPH, description="Greets")
        done = await imported(client, document, 201)
        agent = ok(await client.get(f"{API}/agents/{document['slug']}"))
        assert (done["agent_id"], done["revision"], done["version"]) == (agent["id"], 1, None)
        assert (agent["draft"], agent["description"], agent["live_version"]) == (HELLO_GRAPH, "Greets", None)

    async def test_binds_other_things_and_takes_another_slug(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        document = portable(asking_graph("oracle"))
        slug = f"mine-{new_id().hex[-12:]}"
        await imported(
            client, document, 201, bindings={"models": {"main": gate.slug}}, slug=slug, publish=True
        )
        version = ok(await client.get(f"{API}/agents/{slug}/versions/live"))
        assert version["bindings"]["models"] == {"main": gate.slug}

    async def test_publishes_in_the_same_transaction(self, client: httpx2.AsyncClient) -> None:
        document = portable(HELLO_GRAPH)
        done = await imported(client, document, 201, publish=True, note="from git")
        assert (done["publishes"], done["version"]["version"], done["version"]["note"]) == (
            True,
            1,
            "from git",
        )

    async def test_of_what_cannot_be_published_leaves_nothing(self, client: httpx2.AsyncClient) -> None:
        document = portable(asking_graph("oracle"))
        response = await client.post(f"{API}/agents/import", json={"document": document, "publish": True})
        assert "/bindings/models/main" in pointers(response, "invalid_graph")
        problem(await client.get(f"{API}/agents/{document['slug']}"), 404, "not_found")

    async def test_over_an_agent_that_is_there_must_be_said(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        document = portable(greeting_graph("Bye!"), slug=slug, name="Renamed")
        problem(await client.post(f"{API}/agents/import", json={"document": document}), 409, "duplicate")
        done = await imported(client, document, on_conflict="update")
        agent = ok(await client.get(f"{API}/agents/{slug}"))
        assert (done["action"], agent["name"], agent["revision"]) == ("update", "Renamed", 2)
        assert (agent["draft"], agent["live_version"]) == (greeting_graph("Bye!"), 1)

    async def test_once_more_changes_nothing(self, client: httpx2.AsyncClient) -> None:
        document = portable(HELLO_GRAPH)
        await imported(client, document, 201, publish=True)
        done = await imported(client, document, on_conflict="update", publish=True)
        assert (done["action"], done["revision"], done["publishes"]) == ("unchanged", 1, False)
        assert done["version"]["version"] == 1

    async def test_with_a_key_happens_once(self, client: httpx2.AsyncClient) -> None:
        document, headers = portable(HELLO_GRAPH), keyed()
        body = {"document": document, "publish": True}
        answers = [await client.post(f"{API}/agents/import", json=body, headers=headers) for _ in range(2)]
        assert {(answer.status_code, answer.text) for answer in answers} == {(201, answers[0].text)}
        assert await total(client, f"agents/{document['slug']}/versions") == 1

    async def test_takes_an_unfinished_draft(self, client: httpx2.AsyncClient) -> None:
        done = await imported(client, portable({"nodes": 7, "bindings": 3}), 201)
        assert (done["valid"], done["bindings"]) == (False, [])

    @pytest.mark.parametrize("bindings", [{"models": {"mian": "x"}}, {"tools": {"main": "x"}}])
    async def test_refuses_to_bind_what_the_document_does_not(
        self, client: httpx2.AsyncClient, bindings: dict[str, dict[str, str]]
    ) -> None:
        body = {"document": portable(asking_graph("default-chat")), "bindings": bindings}
        response = await client.post(f"{API}/agents/import", json=body)
        ((kind, names),) = bindings.items()
        assert pointers(response, "unknown_name") == [f"/body/bindings/{kind}/{next(iter(names))}"]

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"kind": "pipeline"}, "/body/document/kind"),
            ({"schema_version": "2"}, "/body/document/schema_version"),
            ({"slug": "A B"}, "/body/document/slug"),
            ({"secrets": {"a": "b"}}, "/body/document/secrets"),
            ({"graph": []}, "/body/document/graph"),
        ],
    )
    async def test_refuses_what_is_no_agent(
        self, client: httpx2.AsyncClient, change: dict[str, Any], place: str
    ) -> None:
        body = {"document": portable(HELLO_GRAPH) | change}
        assert pointers(await client.post(f"{API}/agents/import", json=body)) == [place]
