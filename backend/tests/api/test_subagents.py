"""Agents that call published agents, over HTTP."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.api.calls import API, ended, new_agent, ok, problem

pytestmark = pytest.mark.asyncio(loop_scope="session")


def greeter(text: str) -> dict[str, Any]:
    return {
        "schema_version": "1",
        "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "interface": {"answer": "answer"},
        "nodes": [
            {"id": "start", "type": "start"},
            {"id": "write", "type": "template", "config": {"text": text}},
            {"id": "done", "type": "end", "config": {"output": {"answer": "{{ write.text }}"}}},
        ],
        "edges": [{"source": "start", "target": "write"}, {"source": "write", "target": "done"}],
    }


def calling(target: str, **inputs: Any) -> dict[str, Any]:
    graph = greeter("")
    config = {"agent": "other", "inputs": inputs or {"name": "{{ inputs.name }}"}}
    graph["bindings"] = {"agents": {"other": target}}
    graph["nodes"][1] = {"id": "write", "type": "subagent", "config": config}
    graph["nodes"][2]["config"] = {"output": {"answer": "{{ write.answer }}"}}
    return graph


async def answer_of(client: httpx2.AsyncClient, slug: str) -> str:
    response = await client.post(f"{API}/agents/{slug}/runs", json={"input": {"name": "Ada"}})
    run = await ended(client, ok(response)["id"])
    return str(run["output"]["answer"])


async def redraft(client: httpx2.AsyncClient, slug: str, graph: dict[str, Any]) -> httpx2.Response:
    ok(await client.patch(f"{API}/agents/{slug}", json={"graph": graph}))
    return await client.post(f"{API}/agents/{slug}/publish")


async def test_are_run_as_they_were_when_the_caller_was_new_agent(client: httpx2.AsyncClient) -> None:
    other = await new_agent(client, greeter("Hello, {{ inputs.name }}"))
    slug = await new_agent(client, calling(other))
    ok(await redraft(client, other, greeter("Bye, {{ inputs.name }}")), 201)
    assert await answer_of(client, slug) == "Hello, Ada"
    ok(await redraft(client, slug, calling(other)), 201)
    assert await answer_of(client, slug) == "Bye, Ada"
    ok(await redraft(client, slug, calling(f"{other}@1")), 201)
    assert await answer_of(client, slug) == "Hello, Ada"


async def test_must_be_new_agent(client: httpx2.AsyncClient) -> None:
    slug = await new_agent(client, calling("nobody-knows"), publish=False)
    report = ok(await client.post(f"{API}/agents/{slug}/validate"))
    assert [issue["code"] for issue in report["issues"]] == ["unknown_binding"]


@pytest.mark.parametrize(
    ("inputs", "code"), [({"nam": "x", "name": "y"}, "unknown_input"), ({"x": 1}, "missing_key")]
)
async def test_are_given_what_they_take(
    client: httpx2.AsyncClient, inputs: dict[str, Any], code: str
) -> None:
    other = await new_agent(client, greeter("Hello, {{ inputs.name }}"))
    slug = await new_agent(client, calling(other, **inputs), publish=False)
    report = ok(await client.post(f"{API}/agents/{slug}/validate"))
    assert code in [issue["code"] for issue in report["issues"]]


async def test_do_not_call_each_other_in_a_circle(client: httpx2.AsyncClient) -> None:
    one = await new_agent(client, greeter("Hello"))
    other = await new_agent(client, calling(one))
    problem(await redraft(client, one, calling(other)), 409, "cyclic_agents")


async def test_are_not_deleted_while_they_are_called(client: httpx2.AsyncClient) -> None:
    other = await new_agent(client, greeter("Hello, {{ inputs.name }}"))
    slug = await new_agent(client, calling(other))
    refused = problem(await client.delete(f"{API}/agents/{other}"), 409, "in_use")
    assert slug in refused["detail"]


async def test_a_misspelt_one_is_told_what_there_is(client: httpx2.AsyncClient) -> None:
    other = await new_agent(client, greeter("Hello"))
    slug = await new_agent(client, calling(other[:-1]), publish=False)
    (issue,) = ok(await client.post(f"{API}/agents/{slug}/validate"))["issues"]
    assert other in issue["fix"]


@pytest.mark.parametrize("name", ["No Slug", "@", "a" * 10_000])
async def test_may_be_called_by_names_that_none_can_have(client: httpx2.AsyncClient, name: str) -> None:
    slug = await new_agent(client, greeter("Hello"), publish=False)
    asked = await client.post(f"{API}/agents/{slug}/validate", json={"graph": calling(name)})
    assert "unknown_binding" in [issue["code"] for issue in ok(asked)["issues"]]
