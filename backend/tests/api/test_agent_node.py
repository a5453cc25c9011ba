"""An agent with an HTTP tool, an MCP server, a collection and another agent, as a user has it: over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.egress import Rule
from app.core.ids import new_id
from tests.agent.agent_calls import document
from tests.api.calls import API, add_texts, ended, finished, frames, new_agent, new_collection, ok, problem
from tests.api.test_subagents import greeter, redraft
from tests.chat_completions import Calls
from tests.core.peers import Peer, peer
from tests.core.peers import ok as replied
from tests.core.peers import says as replies
from tests.fixtures import Running, claims_alone, running_server
from tests.mcp_double import McpDouble, mcp_double
from tests.openai_compatible_double import Double, double, says

pytestmark = pytest.mark.asyncio(loop_scope="session")

REFUND = {"type": "object", "properties": {"amount": {"type": "number"}}, "required": ["amount"]}


@dataclass(frozen=True, slots=True)
class Others:
    """Whom the platform calls: a model, an MCP server, an HTTP server."""

    model: Double
    mcp: McpDouble
    shop: Peer


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def others() -> AsyncIterator[Others]:
    async with double() as model, mcp_double() as mcp, peer(replies(replied(b"refunded"))) as shop:
        yield Others(model, mcp, shop)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(settings: Settings, others: Others) -> AsyncIterator[Running]:
    """The operator has opened them to tenants."""
    authorities = (f"127.0.0.1:{others.model.port}", others.mcp.authority, others.shop.authority)
    opened = tuple(Rule.parse(authority) for authority in authorities)
    async with running_server(settings.model_copy(update={"egress_allow": opened})) as running:
        yield running


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, server: Running) -> None:
    claims_alone(monkeypatch, server)


def calls(*wanted: tuple[str, Any]) -> list[Calls]:
    """Arguments are objects, or texts as a model would write them; they come in two pieces."""
    made = []
    for index, (name, given) in enumerate(wanted):
        text = given if isinstance(given, str) else json.dumps(given)
        made.append(Calls(f"call_{index}", name, [text[: len(text) // 2], text[len(text) // 2 :]]))
    return made


@dataclass(frozen=True, slots=True)
class Bound:
    """Slugs of one project."""

    model: str
    refund: str
    server: str


@pytest_asyncio.fixture(loop_scope="session")
async def bound(client: httpx2.AsyncClient, others: Others) -> Bound:
    mark = new_id().hex[-10:]
    body = {"slug": f"c-{mark}", "base_url": others.model.base_url, "api_key": "sk-test"}
    connection = ok(await client.post(f"{API}/model-connections", json=body), 201)
    body = {"slug": f"m-{mark}", "model": "double-1", "connection": connection["id"]}
    model = ok(await client.post(f"{API}/models", json=body), 201)
    request = {
        "url": others.shop.url,
        "method": "POST",
        "body": {"json": {"amount": "{{ arguments.amount }}"}},
    }
    body = {
        "slug": f"refund-{mark}",
        "config": {"kind": "http", "request": request, "parameters": REFUND},
        "approval": "writes",
    }
    refund = ok(await client.post(f"{API}/tools", json=body), 201)
    body = {"slug": f"mcp-{mark}", "config": {"kind": "mcp", "url": others.mcp.url}}
    server = ok(await client.post(f"{API}/tools", json=body), 201)
    return Bound(model["slug"], refund["slug"], server["slug"])


def graph(bound: Bound, bindings: Any = None, **config: Any) -> dict[str, Any]:
    made = document(bindings={"models": {"main": bound.model}, **(bindings or {})}, **config)
    made["interface"] = {"message": "question", "answer": "answer"}
    return made


async def run_of(client: httpx2.AsyncClient, made: dict[str, Any]) -> dict[str, Any]:
    slug = await new_agent(client, made)
    body = {"input": {"question": "Why?"}}
    return ok(await client.post(f"{API}/agents/{slug}/runs", json=body))


async def events_of(client: httpx2.AsyncClient, run: dict[str, Any]) -> list[dict[str, Any]]:
    response = await client.get(f"{API}/runs/{run['id']}/events")
    return [frame.data["event"] for frame in frames(response.text)]


class TestTools:
    async def test_of_every_kind_in_one_run(
        self, client: httpx2.AsyncClient, server: Running, others: Others, bound: Bound
    ) -> None:
        shelf = await new_collection(client)
        job = await add_texts(client, shelf, {"title": "Prices", "text": "A pound of gold costs nine."})
        await finished(client, server, job["job_id"] if "job_id" in job else job["id"])
        other = await new_agent(client, greeter("Hello, {{ inputs.name }}"))
        bindings = {
            "tools": {"sums": bound.server}, "collections": {"prices": shelf}, "agents": {"greeter": other},
        }  # fmt: skip
        others.model.next(
            says(calls=calls(
                ("add", {"a": 2, "b": 3}), ("search_prices", {"query": "gold"}), ("greeter", {"name": "Ada"}),
            )),
            says("Nine", " [1]."),
        )  # fmt: skip
        run = await run_of(client, graph(
            bound, bindings, tools=["sums"], collections=["prices"], agents=["greeter"], citations=True,
        ))  # fmt: skip
        assert run["status"] == "succeeded", run
        output = run["output"]
        assert [call["text"] for call in output["tool_calls"]][::2] == ["5", "Hello, Ada"]
        assert "A pound of gold" in output["tool_calls"][1]["text"]
        assert [(one["index"], one["title"]) for one in output["citations"]] == [(1, "Prices")]
        asked = others.model.calls[-1]["messages"]
        assert [message["role"] for message in asked] == [
            "system",
            "user",
            "assistant",
            "tool",
            "tool",
            "tool",
        ]

    async def test_are_told_as_they_are_called(
        self, client: httpx2.AsyncClient, others: Others, bound: Bound
    ) -> None:
        others.model.next(says("Let me see.", calls=calls(("add", {"a": 2, "b": 3}))), says("Five."))
        run = await run_of(client, graph(bound, {"tools": {"sums": bound.server}}, tools=["sums"]))
        told = await events_of(client, run)
        kinds = [event["type"] for event in told if event["type"].startswith("TOOL_CALL")]
        assert kinds[0] == "TOOL_CALL_START"
        assert kinds[-2:] == ["TOOL_CALL_END", "TOOL_CALL_RESULT"]
        result = next(event for event in told if event["type"] == "TOOL_CALL_RESULT")
        assert (result["content"], result["role"]) == ("5", "tool")

    async def test_hostile_calls_do_not_end_the_loop(
        self, client: httpx2.AsyncClient, others: Others, bound: Bound
    ) -> None:
        others.model.next(
            says(calls=calls(("add", '{"a": 2, '), ("adds", {}), ("add", {"a": "two", "b": []}))),
            says(calls=calls(("add", {"a": 2, "b": 3}))),
            says("Five."),
        )
        run = await run_of(client, graph(bound, {"tools": {"sums": bound.server}}, tools=["sums"]))
        assert [(call["error"] or {}).get("code") for call in run["output"]["tool_calls"]] == [
            "invalid_arguments", "unknown_operation", "invalid_arguments", None,
        ]  # fmt: skip
        assert run["output"]["answer"] == "Five."


class TestApproval:
    async def asked(
        self, client: httpx2.AsyncClient, others: Others, bound: Bound
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        others.model.next(says(calls=calls((bound.refund, {"amount": 30}))), says("Done."))
        run = await run_of(client, graph(bound, {"tools": {"shop": bound.refund}}, tools=["shop"]))
        assert run["status"] == "interrupted"
        (question,) = ok(await client.get(f"{API}/runs/{run['id']}/interrupts?status=open"))["items"]
        return run, question

    async def answered(
        self, client: httpx2.AsyncClient, run: dict[str, Any], question: dict[str, Any], **body: Any
    ) -> dict[str, Any]:
        ok(await client.post(f"{API}/runs/{run['id']}/interrupts/{question['id']}", json=body))
        return await ended(client, run["id"])

    async def test_is_granted(self, client: httpx2.AsyncClient, others: Others, bound: Bound) -> None:
        before = len(others.shop.requests)
        run, question = await self.asked(client, others, bound)
        assert (question["kind"], question["choices"]) == ("approval", ["approve", "reject"])
        assert question["prefill"] == {"arguments": {"amount": 30}}
        assert len(others.shop.requests) == before
        done = await self.answered(client, run, question, choice="approve")
        assert json.loads(others.shop.requests[-1].body) == {"amount": 30}
        assert done["output"]["tool_calls"][0]["approved"] is True
        (call,) = [one for one in await events_of(client, run) if one["type"] == "TOOL_CALL_START"]
        assert (question["tool"], question["tool_call_id"]) == (call["toolCallName"], call["toolCallId"])

    async def test_is_granted_with_other_arguments(
        self, client: httpx2.AsyncClient, others: Others, bound: Bound
    ) -> None:
        run, question = await self.asked(client, others, bound)
        wrong = {"choice": "approve", "data": {"arguments": {"amount": "much"}}}
        path = f"{API}/runs/{run['id']}/interrupts/{question['id']}"
        problem(await client.post(path, json=wrong), 422, "invalid")
        await self.answered(client, run, question, choice="approve", data={"arguments": {"amount": 12.5}})
        assert json.loads(others.shop.requests[-1].body) == {"amount": 12.5}

    async def test_is_refused(self, client: httpx2.AsyncClient, others: Others, bound: Bound) -> None:
        run, question = await self.asked(client, others, bound)
        before = len(others.shop.requests)
        done = await self.answered(client, run, question, choice="reject", data={"reason": "too much"})
        assert (len(others.shop.requests), done["status"]) == (before, "succeeded")
        assert "too much" in others.model.calls[-1]["messages"][-1]["content"]
        assert done["output"]["tool_calls"][0]["error"]["code"] == "rejected"


class TestAgents:
    async def test_do_not_call_each_other_in_a_circle(self, client: httpx2.AsyncClient, bound: Bound) -> None:
        slug = await new_agent(client, graph(bound))
        caller = await new_agent(client, graph(bound, {"agents": {"other": slug}}, agents=["other"]))
        looped = graph(bound, {"agents": {"other": caller}}, agents=["other"])
        problem(await redraft(client, slug, looped), 409, "cyclic_agents")
