"""Tools over HTTP: registered, changed, listed, invoked, refreshed; secrets are never shown."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.egress import Rule
from app.core.ids import new_id
from tests.api.calls import API, new_agent, new_collection, ok, pointers, problem
from tests.factories import Factory
from tests.fixtures import Running, http_client, running_server
from tests.mcp_double import McpDouble, mcp_double

pytestmark = pytest.mark.asyncio(loop_scope="session")

TOKEN = "canary-tool-51ad08b7"
CALCULATOR = {"kind": "builtin", "function": "calculator"}
HTTP = {"kind": "http", "request": {"url": "https://a.example/{{ arguments.q }}"}}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def remote() -> AsyncIterator[McpDouble]:
    async with mcp_double(token=TOKEN) as made:
        yield made


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def server(settings: Settings, remote: McpDouble) -> AsyncIterator[Running]:
    """The operator has opened the MCP server to tenants, and it is asked at each call."""
    opened = (Rule.parse(remote.authority),)
    changes = {"egress_allow": opened, "tool_listing_s": 0, "tool_cache_s": 60}
    async with running_server(settings.model_copy(update=changes)) as running:
        yield running


async def register(client: httpx2.AsyncClient, config: dict[str, Any], **changes: Any) -> dict[str, Any]:
    body = {"slug": f"t-{new_id().hex[-12:]}", "config": config} | changes
    return ok(await client.post(f"{API}/tools", json=body), 201)


async def connected(client: httpx2.AsyncClient, remote: McpDouble, **changes: Any) -> dict[str, Any]:
    """The MCP server, called with its token, which is a secret of the project."""
    await client.post(f"{API}/secrets", json={"name": "mcp-token", "value": TOKEN})
    headers = {"Authorization": {"secret": "mcp-token", "prefix": "Bearer "}}
    return await register(client, {"kind": "mcp", "url": remote.url, "headers": headers} | changes)


async def invoke(
    client: httpx2.AsyncClient, tool: str, operation: str | None = None, **arguments: Any
) -> dict[str, Any]:
    body = {"operation": operation, "arguments": arguments}
    return ok(await client.post(f"{API}/tools/{tool}/invoke", json=body))


def calling(slug: str, **config: Any) -> dict[str, Any]:
    """A graph of one node, which calls the tool."""
    return {
        "schema_version": "1",
        "bindings": {"tools": {"it": slug}},
        "nodes": [
            {"id": "start", "type": "start"},
            {"id": "call", "type": "tool", "config": {"tool": "it", **config}},
            {"id": "done", "type": "end", "config": {"output": {"result": "{{ call.result }}"}}},
        ],
        "edges": [{"source": "start", "target": "call"}, {"source": "call", "target": "done"}],
    }


class TestRegistering:
    async def test_answers_what_was_registered(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR, approval="always", description="Sums.")
        named = ("kind", "config", "approval", "description", "revision", "unusable")
        assert [made[name] for name in named] == ["builtin", CALCULATOR, "always", "Sums.", 1, []]
        assert ok(await client.get(f"{API}/tools/{made['slug']}")) == made

    async def test_a_slug_is_taken_once(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        body = {"slug": made["slug"], "config": CALCULATOR}
        problem(await client.post(f"{API}/tools", json=body), 409, "duplicate")

    @pytest.mark.parametrize(
        ("config", "pointer"),
        [
            ({"kind": "stdio", "command": "sh"}, "/body/config"),
            (CALCULATOR | {"function": "shell"}, "/body/config/function"),
            ({"kind": "mcp", "url": "ftp://a.example"}, "/body/config/url"),
            (HTTP, "/body/config/request/url"),
        ],
    )
    async def test_what_is_wrong_is_pointed_at(
        self, client: httpx2.AsyncClient, config: dict[str, Any], pointer: str
    ) -> None:
        response = await client.post(f"{API}/tools", json={"slug": "wrong", "config": config})
        assert all(found.startswith(pointer) for found in pointers(response))

    async def test_a_collection_that_is_searched_must_be_there(self, client: httpx2.AsyncClient) -> None:
        config = {"kind": "retrieval", "collection": "nowhere"}
        body = {"slug": "search", "config": config}
        problem(await client.post(f"{API}/tools", json=body), 404, "not_found")
        collection = await new_collection(client)
        made = await register(client, config | {"collection": collection})
        found = await invoke(client, made["slug"], query="gold")
        assert (found["ok"], found["content"], found["text"]) == (True, [], "Nothing was found.")

    async def test_a_server_that_may_not_be_called_is_told(self, client: httpx2.AsyncClient) -> None:
        config = {"kind": "mcp", "url": "http://127.0.0.1:9/mcp"}
        response = await client.post(f"{API}/tools", json={"slug": "inside", "config": config})
        assert problem(response, 422, "invalid")["errors"][0]["code"] == "egress_denied"

    async def test_lists_have_no_configurations(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        items = ok(await client.get(f"{API}/tools", params={"q": made["slug"]}))["items"]
        assert [(item["id"], "config" in item) for item in items] == [(made["id"], False)]


class TestChanging:
    async def test_merges_the_configuration(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        path = f"{API}/tools/{made['id']}"
        changed = ok(await client.patch(path, json={"config": {"function": "current_time"}}))
        assert (changed["config"]["function"], changed["revision"]) == ("current_time", 2)
        found = await invoke(client, made["id"], time_zone="Asia/Tokyo")
        assert found["content"]["time"].endswith("+09:00")

    async def test_the_kind_stays(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        response = await client.patch(f"{API}/tools/{made['id']}", json={"config": {"kind": "http"}})
        assert pointers(response) == ["/body/config/kind"]

    async def test_only_at_the_revision_that_was_read(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        path, old = f"{API}/tools/{made['id']}", {"If-Match": '"1"'}
        ok(await client.patch(path, json={"description": "New."}, headers=old))
        problem(
            await client.patch(path, json={"description": "Newer."}, headers=old), 412, "precondition_failed"
        )
        problem(await client.delete(path, headers=old), 412, "precondition_failed")


class TestInvoking:
    async def test_the_calculator_evaluates_arithmetic(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        found = await invoke(client, made["slug"], expression="(17.5 + 3) * 2 ** 4 / 8")
        assert (found["ok"], found["content"], found["text"]) == (True, 41.0, "41.0")

    @pytest.mark.parametrize("expression", ["__import__('os')", "1 +", "9 ** 9 ** 9 ** 9", "{{ inputs.x }}"])
    async def test_the_calculator_does_nothing_else(
        self, client: httpx2.AsyncClient, expression: str
    ) -> None:
        made = await register(client, CALCULATOR)
        body = {"arguments": {"expression": expression}}
        response = await client.post(f"{API}/tools/{made['slug']}/invoke", json=body)
        assert response.status_code == 422 or not response.json()["ok"]

    async def test_all_wrong_arguments_are_pointed_at(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        body = {"arguments": {"expression": 7, "more": 1}}
        response = await client.post(f"{API}/tools/{made['slug']}/invoke", json=body)
        assert set(pointers(response)) == {"/body/arguments", "/body/arguments/expression"}

    async def test_an_unknown_operation_is_told(self, client: httpx2.AsyncClient, remote: McpDouble) -> None:
        made = await connected(client, remote)
        response = await client.post(f"{API}/tools/{made['id']}/invoke", json={"arguments": {}})
        assert "'look_up'" in problem(response, 422, "unknown_operation")["detail"]


class TestMcp:
    async def test_its_tools_are_operations(self, client: httpx2.AsyncClient, remote: McpDouble) -> None:
        made = await connected(client, remote)
        items = ok(await client.get(f"{API}/tools/{made['id']}/operations"))["items"]
        assert [item["name"] for item in items] == ["add", "look_up", "paint", "refuse"]
        assert (await invoke(client, made["id"], "add", a=2, b=3))["content"] == {"sum": 5}

    async def test_secrets_are_shown_nowhere(self, client: httpx2.AsyncClient, remote: McpDouble) -> None:
        made = await connected(client, remote)
        run = await new_agent(client, calling(made["slug"], operation="add", arguments={"a": 1, "b": 2}))
        for response in (
            await client.get(f"{API}/tools/{made['id']}"),
            await client.get(f"{API}/tools/{made['id']}/operations"),
            await client.post(f"{API}/tools/{made['id']}/invoke", json={"operation": "refuse"}),
            await client.post(f"{API}/agents/{run}/runs", json={"input": {}}),
        ):
            assert response.status_code == 200
            assert TOKEN not in response.text

    async def test_changed_descriptions_are_looked_at_and_confirmed(
        self, client: httpx2.AsyncClient, remote: McpDouble
    ) -> None:
        made = await connected(client, remote)
        path, kept = f"{API}/tools/{made['id']}", remote.tools[0]
        remote.tools[0] = kept.model_copy(update={"description": "Sends mails."})
        try:
            assert (await invoke(client, made["id"], "add", a=2, b=3))["error"]["code"] == "tool_changed"
            seen = ok(await client.post(f"{path}/refresh", json={}))
            assert [one["name"] for one in seen["changed"]] == ["add"]
            assert (await invoke(client, made["id"], "add", a=2, b=3))["error"]["code"] == "tool_changed"
            problem(await client.post(f"{path}/refresh", json={"confirm": "0"}), 409, "tool_changed")
            ok(await client.post(f"{path}/refresh", json={"confirm": seen["digest"]}))
            assert (await invoke(client, made["id"], "add", a=2, b=3))["ok"]
        finally:
            remote.tools[0] = kept


class TestInGraphs:
    async def test_a_run_calls_the_tool(self, client: httpx2.AsyncClient, remote: McpDouble) -> None:
        made = await connected(client, remote)
        agent = await new_agent(client, calling(made["slug"], operation="add", arguments={"a": 1, "b": 2}))
        run = ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {}}))
        assert run["output"] == {"result": {"sum": 3}}

    async def test_publishing_checks_the_call(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        agent = await new_agent(client, calling(made["slug"]), publish=False)
        response = await client.post(f"{API}/agents/{agent}/publish", json={})
        assert pointers(response, "invalid_graph") == ["/nodes/1/config/arguments"]

    async def test_a_tool_in_use_is_not_deleted(self, client: httpx2.AsyncClient) -> None:
        made = await register(client, CALCULATOR)
        agent = await new_agent(client, calling(made["slug"], arguments={"expression": "1"}))
        path = f"{API}/tools/{made['id']}"
        assert repr(agent) in problem(await client.delete(path), 409, "in_use")["detail"]
        assert (await client.delete(f"{API}/agents/{agent}")).status_code in (202, 204)
        assert (await client.delete(path)).status_code == 204
        problem(await client.get(path), 404, "not_found")

    async def test_tools_of_another_project_cannot_be_bound(
        self, client: httpx2.AsyncClient, server: Running, make: Factory
    ) -> None:
        made = await register(client, CALCULATOR)
        async with http_client(server, (await make.member()).key) as stranger:
            graph = calling(made["slug"], arguments={"expression": "1"})
            agent = await new_agent(stranger, graph, publish=False)
            response = await stranger.post(f"{API}/agents/{agent}/publish", json={})
            assert pointers(response, "invalid_graph") == ["/bindings/tools/it"]
