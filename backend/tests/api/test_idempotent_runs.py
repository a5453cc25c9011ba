"""G5 for runs: the run of an `Idempotency-Key` is found again, executing or ended, and answered from."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest
from sqlalchemy import func, update

from app.db.postgres.models.agents import AgentRun
from tests.api.calls import API, arriving, ended, frames, keyed, new_agent, ok, problem, total
from tests.factories import Factory, Member
from tests.fixtures import Running
from tests.graphs import HELLO_GRAPH, asking_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")


class TestStream:
    async def test_is_of_the_same_run_from_the_start_or_after_an_event(
        self, client: httpx2.AsyncClient
    ) -> None:
        path, headers = f"{API}/agents/{await new_agent(client)}/runs", keyed()
        body = {"input": {"name": "Ada"}, "mode": "stream"}
        first = await client.post(path, json=body, headers=headers)
        again = await client.post(path, json=body, headers=headers)
        assert frames(again.text) == frames(first.text)
        assert again.headers["Location"] == first.headers["Location"]
        assert again.headers["Idempotency-Replayed"] == "true"
        rest = await client.post(path, json=body, headers=headers | {"Last-Event-ID": "2"})
        assert frames(rest.text) == frames(first.text)[2:]

    async def test_can_be_joined_while_the_run_executes(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        agent = await new_agent(client, asking_graph(gate.slug))
        path, headers = f"{API}/agents/{agent}/runs", keyed()
        body = {"input": {"name": "Ada"}, "mode": "stream"}
        async with client.stream("POST", path, json=body, headers=headers) as response:
            seen = [await anext(arriving(response))]
        await gate.entered.wait()
        async with client.stream("POST", path, json=body, headers=headers) as response:
            gate.opened.set()
            joined = [frame async for frame in arriving(response)]
        assert joined[0] == seen[0]
        assert joined[-1].event == "RUN_FINISHED"
        assert await total(client, f"runs?agent={agent}") == 1

    async def test_of_a_waiting_request_that_gave_up_is_its_end(
        self, client: httpx2.AsyncClient, make: Factory, member: Member
    ) -> None:
        gate = await make.gate(member)
        path = f"{API}/agents/{await new_agent(client, asking_graph(gate.slug))}/runs"
        headers, body = keyed(), {"input": {"name": "Ada"}, "wait_timeout_s": 0.1}
        run = ok(await client.post(path, json=body, headers=headers), 202)
        gate.opened.set()
        await ended(client, run["id"])
        assert ok(await client.post(path, json=body, headers=headers))["output"] == {"text": "Wait is over"}


class TestRefusal:
    async def test_leaves_the_key_free(self, client: httpx2.AsyncClient) -> None:
        agent = ok(await client.post(f"{API}/agents", json={"name": "Late", "graph": HELLO_GRAPH}), 201)[
            "slug"
        ]
        path, headers, body = f"{API}/agents/{agent}/runs", keyed(), {"input": {"name": "Ada"}}
        problem(await client.post(path, json=body, headers=headers), 409, "not_published")
        ok(await client.post(f"{API}/agents/{agent}/publish"), 201)
        assert ok(await client.post(path, json=body, headers=headers))["status"] == "succeeded"


class TestCrash:
    async def test_between_a_runs_start_and_its_answer_ends_in_the_same_run(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        agent, headers, body = await new_agent(client), keyed(), {"input": {"name": "Ada"}}

        def die(_: Any) -> None:
            raise RuntimeError("gone with the run committed and not begun")

        with monkeypatch.context() as patched:
            patched.setattr(type(server.resources.executor), "start", lambda self, execution: die(execution))
            path = f"{API}/agents/{agent}/runs"
            problem(await client.post(path, json=body, headers=headers), 500, "internal_error")
        (run,) = ok(await client.get(f"{API}/runs", params={"agent": agent}))["items"]
        async with server.resources.database.system_work() as session:
            await session.execute(
                update(AgentRun)
                .values(lease_owner="dead", lease_until=func.now())
                .where(AgentRun.id == run["id"])
            )
        again = ok(await client.post(path, json=body, headers=headers))
        assert (again["id"], again["status"]) == (run["id"], "succeeded")
