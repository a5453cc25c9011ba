"""Runs that wait for people and times, over HTTP: the inbox, answers, and what comes of them."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import httpx2
import pytest

from app.core.permissions import Permission
from tests.api.calls import API, ended, frames, new_agent, ok, pointers, problem
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

FORM = {
    "type": "object",
    "properties": {"amount": {"type": "number", "minimum": 0}},
    "required": ["amount"],
    "additionalProperties": False,
}


def asking(**config: Any) -> dict[str, Any]:
    """start → ask → done; every way out of `ask` leads to the end."""
    asked = {"message": "Pay {{ inputs.name }}?", **config}
    ways = [*config.get("choices", ["out"]), *(["timeout"] if "answer_within_s" in config else [])]
    out = {"choice": "{{ ask.choice }}", "data": "{{ ask.data }}", "by": "{{ ask.answered_by }}"}
    return {
        "schema_version": "1",
        "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
        "nodes": [
            {"id": "start", "type": "start"},
            {"id": "ask", "type": "human", "config": asked},
            {"id": "done", "type": "end", "config": {"output": out}},
        ],
        "edges": [
            {"source": "start", "target": "ask"},
            *({"source": "ask", "handle": way, "target": "done"} for way in ways),
        ],
    }


def pausing(seconds: float) -> dict[str, Any]:
    graph = asking()
    graph["nodes"][1] = {"id": "ask", "type": "wait", "config": {"for_s": seconds}}
    graph["nodes"][2]["config"] = {"output": {"at": "{{ ask.waited_until }}"}}
    return graph


def asking_beside_what_fails(after_s: float) -> dict[str, Any]:
    graph = asking()
    graph["nodes"] += [
        {"id": "nap", "type": "wait", "config": {"for_s": after_s}},
        {"id": "fail", "type": "transform", "config": {"values": {"n": "1 / 0"}}},
    ]
    path = ("start", "nap", "fail", "done")
    graph["edges"] += [{"source": a, "target": b} for a, b in pairwise(path)]
    return graph


async def run_of(client: httpx2.AsyncClient, graph: dict[str, Any], **how: Any) -> dict[str, Any]:
    slug = await new_agent(client, graph)
    body = {"input": {"name": "Ada"}, **how}
    return dict(ok(await client.post(f"{API}/agents/{slug}/runs", json=body)))


async def asked(client: httpx2.AsyncClient, run: dict[str, Any]) -> list[dict[str, Any]]:
    return list(ok(await client.get(f"{API}/runs/{run['id']}/interrupts?status=open"))["items"])


async def answer(
    client: httpx2.AsyncClient, run: dict[str, Any], question: dict[str, Any], **body: Any
) -> httpx2.Response:
    return await client.post(f"{API}/runs/{run['id']}/interrupts/{question['id']}", json=body)


class TestQuestion:
    async def test_interrupts_the_run_which_is_answered_at_once(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, asking())
        assert (run["status"], run["finished_at"], run["output"]) == ("interrupted", None, None)

    async def test_stands_in_the_inbox(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, asking(choices=["yes", "no"], form=FORM, prefill={"amount": 3}))
        (question,) = ok(await client.get(f"{API}/interrupts?assignee=me"))["items"]
        assert (question["run_id"], question["message"]) == (run["id"], "Pay Ada?")
        assert (question["choices"], question["form"], question["prefill"]) == (
            ["yes", "no"],
            FORM,
            {"amount": 3},
        )

    async def test_is_answered_and_the_run_goes_on(self, client: httpx2.AsyncClient, member: Member) -> None:
        run = await run_of(client, asking(choices=["yes", "no"], form=FORM))
        (question,) = await asked(client, run)
        closed = ok(await answer(client, run, question, choice="no", data={"amount": 1.5}))
        assert closed["status"] == "answered"
        done = await ended(client, run["id"])
        assert done["status"] == "succeeded"
        assert done["output"] == {"choice": "no", "data": {"amount": 1.5}, "by": closed["answered_by"]}
        assert await asked(client, run) == []

    @pytest.mark.parametrize(
        ("body", "where"),
        [
            ({"data": {"amount": 1}}, "/body/choice"),
            ({"choice": "maybe", "data": {"amount": 1}}, "/body/choice"),
            ({"choice": "yes"}, "/body/data"),
            ({"choice": "yes", "data": {"amount": -1}}, "/body/data/amount"),
            ({"choice": "yes", "data": {"amount": "1"}}, "/body/data/amount"),
            ({"choice": "yes", "data": {"amount": 2**53}}, "/body/data/amount"),
        ],
    )
    async def test_is_open_still_after_an_answer_that_does_not_fit(
        self, client: httpx2.AsyncClient, body: dict[str, Any], where: str
    ) -> None:
        run = await run_of(client, asking(choices=["yes", "no"], form=FORM))
        (question,) = await asked(client, run)
        assert where in pointers(await answer(client, run, question, **body))
        assert len(await asked(client, run)) == 1

    async def test_is_answered_by_one_of_fifty_at_once(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, asking(form=FORM))
        (question,) = await asked(client, run)
        answers = await asyncio.gather(
            *(answer(client, run, question, data={"amount": number}) for number in range(50))
        )
        codes = sorted(response.status_code for response in answers)
        assert codes == [200] + [409] * 49
        taken = next(response.json() for response in answers if response.status_code == 200)
        assert (await ended(client, run["id"]))["output"]["data"] == taken["data"]
        late = next(response for response in answers if response.status_code == 409)
        problem(late, 409, "already_answered")

    async def test_expires(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, asking(answer_within_s=0.05))
        question = ok(await client.get(f"{API}/runs/{run['id']}/interrupts"))["items"][0]
        done = await ended(client, run["id"])
        assert (done["status"], done["output"]["choice"]) == ("succeeded", None)
        problem(await answer(client, run, question), 409, "already_expired")

    async def test_is_gone_with_its_run(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, asking())
        (question,) = await asked(client, run)
        cancelled = ok(await client.post(f"{API}/runs/{run['id']}/cancel?wait=true"))
        assert cancelled["status"] == "cancelled"
        assert await asked(client, run) == []
        problem(await answer(client, run, question), 409, "run_ended")

    @pytest.mark.parametrize("status", ["cancelled", "failed"])
    async def test_is_withdrawn_when_its_run_ends(self, client: httpx2.AsyncClient, status: str) -> None:
        """Cancelled while nobody executes it, or failed beside the question."""
        run = await run_of(client, asking_beside_what_fails(0.2 if status == "failed" else 3600))
        if status == "cancelled":
            ok(await client.post(f"{API}/runs/{run['id']}/cancel?wait=true"))
        assert (await ended(client, run["id"]))["status"] == status
        (question,) = ok(await client.get(f"{API}/runs/{run['id']}/interrupts"))["items"]
        assert question["status"] == "withdrawn"
        assert question["closed_at"]
        problem(await answer(client, run, question), 409, "run_ended")

    async def test_of_somebody_else_is_theirs_to_answer(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        run = await run_of(client, asking(assignee="bob@example.org"))
        (question,) = await asked(client, run)
        key = await make.key(member, permissions=[Permission.AGENTS_READ, Permission.AGENTS_RUN])
        async with http_client(server, key.key) as other:
            assert ok(await other.get(f"{API}/interrupts?assignee=me"))["items"] == []
            refused = problem(await answer(other, run, question), 403, "forbidden")
            assert refused["detail"] == "This is for 'bob@example.org' to answer."
        ok(await answer(client, run, question))

    async def test_of_another_organization_does_not_exist(
        self, client: httpx2.AsyncClient, server: Running, make: Factory
    ) -> None:
        run = await run_of(client, asking())
        (question,) = await asked(client, run)
        async with http_client(server, (await make.member()).key) as stranger:
            assert ok(await stranger.get(f"{API}/interrupts"))["items"] == []
            problem(await answer(stranger, run, question), 404, "not_found")

    async def test_is_told_in_the_stream_which_goes_on_after_the_answer(
        self, client: httpx2.AsyncClient
    ) -> None:
        run = await run_of(client, asking())
        (question,) = await asked(client, run)
        following = asyncio.create_task(client.get(f"{API}/runs/{run['id']}/events"))
        await asyncio.sleep(0.05)
        ok(await answer(client, run, question))
        told = [frame.data["event"] for frame in frames((await following).text)]
        names = [event.get("name", event["type"]) for event in told]
        assert names[-5:] == ["run.resumed", "node.finished", "node.started", "node.finished", "RUN_FINISHED"]
        (interrupt,) = [event["value"] for event in told if event.get("name") == "interrupt"]
        assert interrupt["interrupt_id"] == question["id"]


class TestWait:
    async def test_goes_on_by_itself(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, pausing(0.2))
        assert run["status"] == "waiting"
        assert (await ended(client, run["id"]))["status"] == "succeeded"

    async def test_is_not_in_the_inbox(self, client: httpx2.AsyncClient) -> None:
        await run_of(client, pausing(60))
        assert ok(await client.get(f"{API}/interrupts"))["items"] == []

    async def test_can_be_cancelled(self, client: httpx2.AsyncClient) -> None:
        run = await run_of(client, pausing(3600))
        assert ok(await client.post(f"{API}/runs/{run['id']}/cancel?wait=true"))["status"] == "cancelled"
