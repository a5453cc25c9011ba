"""Bodies in YAML: taken by the routes of documents, read after the guard, refused with line and column."""

from __future__ import annotations

import httpx2
import pytest

from app.agent.graph.writing import to_yaml
from app.core.ids import new_id
from tests.api.calls import API, new_agent, ok, pointers, problem
from tests.api.operations import DOCUMENT, OPERATIONS
from tests.fixtures import Running, http_client
from tests.graphs import HELLO_GRAPH, greeting_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")
YAML = {"Content-Type": "application/yaml"}


class TestTaken:
    async def test_by_create_update_and_validate(self, client: httpx2.AsyncClient) -> None:
        slug = f"agent-{new_id().hex[-12:]}"
        body = to_yaml({"name": "Agent", "slug": slug, "graph": HELLO_GRAPH})
        made = ok(await client.post(f"{API}/agents", content=body, headers=YAML), 201)
        assert made["draft"] == HELLO_GRAPH
        body = to_yaml({"graph": greeting_graph("Two.\nLines.")})
        changed = ok(await client.patch(f"{API}/agents/{slug}", content=body, headers=YAML))
        assert changed["draft"] == greeting_graph("Two.\nLines.")
        for path in ("agents/validate", f"agents/{slug}/validate"):
            assert ok(await client.post(f"{API}/{path}", content=body, headers=YAML))["valid"]

    async def test_with_a_charset(self, client: httpx2.AsyncClient) -> None:
        headers = {"Content-Type": "application/yaml; charset=utf-8"}
        body = to_yaml({"graph": HELLO_GRAPH})
        assert ok(await client.post(f"{API}/agents/validate", content=body, headers=headers))["valid"]

    async def test_is_described(self) -> None:
        described = {
            operation.id
            for operation in OPERATIONS
            if "application/yaml" in operation.description.get("requestBody", {}).get("content", {})
        }
        assert described == {
            "agents_create",
            "agents_diff_graphs",
            "agents_import",
            "agents_update",
            "agents_validate",
            "agents_validate_graph",
        }
        assert DOCUMENT["openapi"].startswith("3.1")

    async def test_by_other_routes_is_not(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/collections", content="name: Shelf", headers=YAML)
        problem(response, 415, "unsupported_media_type")

    async def test_is_among_the_choices_that_a_415_names(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/agents", content="x", headers={"Content-Type": "text/plain"})
        assert "'application/yaml'" in problem(response, 415, "unsupported_media_type")["detail"]


class TestRefused:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"name: a\nname: b\n", "'name' is there twice (line 2, column 1)"),
            (b"name: [a\nb: c\n", "(line 2, column 2)"),
            (b'{"name": "a",}', "line 1 column"),
            (b"? [a]\n: b\n", "a key is not text (line 1, column 3)"),
            (b"name: !!python/object:os.system {}\n", "could not determine a constructor"),
            (b"name: \xff\n", "not UTF-8 at byte 6"),
            (b"[" * 3000, "nested too deeply"),
            (b"a: &a [x, x, x, x, x, x, x, x, x, x]\n" + b"".join(
                b"%c: &%c [%s]\n" % (98 + n, 98 + n, b", ".join([b"*%c" % (97 + n)] * 10)) for n in range(8)
            ), "exceeds 100000 values"),
            (b"a: &a [*a]\n", "nested deeper than 32 levels"),
            (b"graph: {layout: {x: 9007199254740993}}\n", "loses digits"),
        ],
    )  # fmt: skip
    async def test_says_why_and_where(self, client: httpx2.AsyncClient, body: bytes, said: str) -> None:
        refused = problem(
            await client.post(f"{API}/agents", content=body, headers=YAML), 400, "malformed_yaml"
        )
        assert said in refused["detail"]
        assert [error["pointer"] for error in refused["errors"]] == ["/body"]

    async def test_points_at_wrong_fields_as_in_json(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/agents", content="nam: a\n", headers=YAML)
        assert pointers(response) == ["/body/name", "/body/nam"]

    async def test_is_told_to_nobody_who_may_not_call(self, server: Running) -> None:
        async with http_client(server, None) as anyone:
            response = await anyone.post(f"{API}/agents", content="a: a: a", headers=YAML)
        problem(response, 401, "unauthenticated")

    async def test_beyond_the_limit_names_the_setting(self, client: httpx2.AsyncClient) -> None:
        body = "name: " + "x" * (512 * 1024)
        response = await client.post(f"{API}/agents", content=body, headers=YAML)
        assert "ORRERY_MAX_YAML_BYTES" in problem(response, 413, "too_large")["detail"]

    async def test_beyond_the_limit_of_requests_is_413_too(self, client: httpx2.AsyncClient) -> None:
        body = "name: " + "x" * (5 * 2**20)
        response = await client.post(f"{API}/agents", content=body, headers=YAML)
        assert "ORRERY_MAX_REQUEST_BYTES" in problem(response, 413, "too_large")["detail"]


class TestAnswered:
    async def test_for_a_version(self, client: httpx2.AsyncClient) -> None:
        slug = await new_agent(client)
        path = f"{API}/agents/{slug}/versions/live"
        response = await client.get(path, headers={"Accept": "application/yaml"})
        assert response.headers["Content-Type"] == "application/yaml"
        assert response.text == to_yaml(ok(await client.get(path)))
