"""The catalogue of node types, and explanations of agents, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator

from app.agent.core.base import NODE_TYPES
from tests.api import conftest as shared
from tests.api.calls import API, new_agent, ok, problem
from tests.graphs import HELLO_GRAPH, asking_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")

settings, server, make, member, client = (
    shared.settings,
    shared.server,
    shared.make,
    shared.member,
    shared.client,
)


class TestCatalogue:
    async def test_has_every_type_with_an_example_that_fits_its_schema(
        self, client: httpx2.AsyncClient
    ) -> None:
        found = ok(await client.get(f"{API}/agents/node-types"))
        assert {kind["type"] for kind in found["items"]} == set(NODE_TYPES)
        for kind in found["items"]:
            Draft202012Validator(kind["config_schema"]).validate(kind["example"].get("config", {}))

    async def test_says_the_policies_once(self, client: httpx2.AsyncClient) -> None:
        found = ok(await client.get(f"{API}/agents/node-types"))
        assert {"retry", "timeout_s", "on_error", "effect", "cache", "join"} <= set(
            found["policies_schema"]["properties"]
        )

    async def test_is_not_sent_twice(self, client: httpx2.AsyncClient) -> None:
        first = await client.get(f"{API}/agents/node-types")
        again = await client.get(f"{API}/agents/node-types", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")

    async def test_one_type_has_the_schema_of_its_whole_node(self, client: httpx2.AsyncClient) -> None:
        kind = ok(await client.get(f"{API}/agents/node-types/condition"))
        Draft202012Validator(kind["node_schema"]).validate(kind["example"])
        own = [branch["handle"] for branch in kind["example"]["config"]["branches"]]
        assert kind["handles"]["success"] == [*own, "else"]

    async def test_an_unknown_type_is_answered_with_those_there_are(self, client: httpx2.AsyncClient) -> None:
        told = problem(await client.get(f"{API}/agents/node-types/telepathy"), 404, "not_found")
        assert "'telepathy'" in told["detail"]
        assert "template" in told["detail"]

    async def test_no_agent_can_take_its_place(self, client: httpx2.AsyncClient) -> None:
        told = problem(await client.post(f"{API}/agents", json={"name": "Node types"}), 409, "duplicate")
        assert "'node-types'" in told["detail"]


class TestExplain:
    async def test_tells_the_draft_of_an_agent(self, client: httpx2.AsyncClient) -> None:
        agent = await new_agent(client)
        told = ok(await client.post(f"{API}/agents/{agent}/explain", json={"input": {"name": "Ada"}}))
        assert [node["id"] for node in told["plan"]["nodes"]] == ["start", "greet", "done"]
        assert told["input"] == {"valid": True, "value": {"name": "Ada"}, "errors": []}

    async def test_says_what_is_wrong_with_an_input(self, client: httpx2.AsyncClient) -> None:
        body: dict[str, Any] = {"graph": HELLO_GRAPH, "input": {}}
        told = ok(await client.post(f"{API}/agents/explain", json=body))
        assert told["input"]["valid"] is False
        assert "name" in told["input"]["errors"][0]["message"]

    async def test_says_what_names_stand_for_and_which_stand_for_nothing(
        self, client: httpx2.AsyncClient
    ) -> None:
        graph = asking_graph("default-chat", collection="nowhere")
        told = ok(await client.post(f"{API}/agents/explain", json={"graph": graph}))
        found = {bound["kind"]: bound for bound in told["bindings"]}
        assert found["models"]["stands_for"]["provider"]
        assert found["models"]["stands_for"]["why"]
        assert found["collections"]["stands_for"] is None
        assert "nowhere" in found["collections"]["problem"]
        assert "unknown_binding" in [issue["code"] for issue in told["issues"]]

    async def test_a_graph_without_a_plan_is_told_why(self, client: httpx2.AsyncClient) -> None:
        told = problem(
            await client.post(f"{API}/agents/explain", json={"graph": {"nodes": []}}), 422, "invalid_graph"
        )
        assert "missing_start" in [error["code"] for error in told["errors"]]
