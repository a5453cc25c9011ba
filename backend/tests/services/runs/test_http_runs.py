"""Runs with `http` nodes: what goes out, how often, and what of it is stored."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import text, update

from app.core.egress import Egress
from app.core.ids import new_id
from app.db.postgres.models.agents import AgentRun, RunMode, RunStatus
from app.db.session import Tenant
from app.services.http_service import ProjectHttp
from app.services.run_service import RunRequest
from app.services.runs.executor import Executor
from tests.core.peers import Request, in_turn, ok, peer, says, way_out
from tests.graphs import HELLO_GRAPH
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
TOKEN = "canary-sk-4f7a1c9e2b"


@pytest_asyncio.fixture(loop_scope="session")
async def crm(bench: Bench) -> str:
    """A secret of the member's project."""
    await bench.resources.secrets(bench.tenant).create("crm-token", SecretStr(TOKEN))
    return "crm-token"


class TestHttpNode:
    def graph(self, url: str, **config: Any) -> dict[str, Any]:
        call = {"id": "call", "type": "http", "config": {"url": url, **config}}
        if config.get("method", "GET") == "GET":
            call["cache"] = {"ttl_s": 60}
        return HELLO_GRAPH | {
            "nodes": [
                {"id": "start", "type": "start"},
                call,
                {"id": "done", "type": "end", "config": {"output": {"text": "{{ call.body }}"}}},
            ],
            "edges": [{"source": "start", "target": "call"}, {"source": "call", "target": "done"}],
        }

    async def ended(self, bench: Bench, executor: Executor, graph: dict[str, Any]) -> AgentRun:
        run = await bench.start(executor, graph)
        assert await executor.finished(run.id, timeout_s=20)
        return await bench.run(run.id)

    async def test_never_stores_the_secret_that_it_sends(self, bench: Bench, crm: str) -> None:
        headers = {"Authorization": {"secret": crm, "prefix": "Bearer "}}
        script = says(ok(f"you sent {TOKEN}".encode()))
        async with peer(script) as there, way_out(there.authority) as egress:
            executor = bench.executor("local:http", http=door(bench, egress))
            async with executor.running():
                run = await self.ended(bench, executor, self.graph(there.url, headers=headers))
        assert there.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
        assert run.output == {"text": "you sent ***"}
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            stored = [
                str((await session.execute(text(f"SELECT to_jsonb(t) FROM {table} t"))).scalars().all())
                for table in ("agent_runs", "agent_run_events", "agent_run_steps", "agent_node_cache")
            ]
        assert [TOKEN in rows for rows in stored] == [False] * 4
        assert ["you sent ***" in rows for rows in stored] == [True] * 4 or "you sent ***" in stored[3]

    async def test_is_asked_once_by_two_runs_of_one_version(self, bench: Bench) -> None:
        async with peer(says(ok(b"fine"))) as there, way_out(there.authority) as egress:
            executor = bench.executor("local:http", http=door(bench, egress))
            async with executor.running():
                agent = await bench.agents().create(
                    "Test", slug=f"a{new_id().hex}", graph=self.graph(there.url)
                )
                for _ in range(2):
                    request = RunRequest(input={"name": "Ada"}, mode=RunMode.STREAM, version="draft")
                    run = await bench.runs(executor).start(agent.slug, request)
                    assert await executor.finished(run.id, timeout_s=20)
        assert len(there.requests) == 1
        finished = [
            e.event["value"] for e in await bench.events(run.id) if e.event.get("name") == "node.finished"
        ]
        assert [value.get("cached") for value in finished if value["node_id"] == "call"] == [True]

    async def test_sends_the_same_idempotency_key_from_the_process_that_goes_on(self, bench: Bench) -> None:
        arrived = asyncio.Event()

        async def says_nothing(request: Request, _: asyncio.StreamWriter) -> None:
            arrived.set()

        script = in_turn(says_nothing, says(ok(b"done")))
        async with peer(script) as there, way_out(there.authority) as egress:
            frozen = bench.executor("local:frozen", lease_s=600, claims=False, http=door(bench, egress))
            other = bench.executor(
                "local:other", lease_s=3, sweep_interval_s=0.2, grace_s=5, http=door(bench, egress)
            )
            async with frozen.running():
                run = await bench.start(frozen, self.graph(there.url, method="POST"))
                await arrived.wait()
                await expire(bench, run)
                async with other.running(), asyncio.timeout(15):
                    while not (row := await bench.run(run.id)).finished_at:
                        await asyncio.sleep(0.05)
                frozen.tasks[run.id].cancel()
        assert (row.status, row.output, row.fence) == (RunStatus.SUCCEEDED, {"text": "done"}, 2)
        first, second = (request.headers["idempotency-key"] for request in there.requests)
        assert first == second

    async def test_reaches_no_private_address_unless_the_operator_opens_it(self, bench: Bench) -> None:
        async with peer() as there:
            executor = bench.executor("local:http")
            async with executor.running():
                run = await self.ended(bench, executor, self.graph(there.url))
        assert run.error
        assert (run.error["code"], there.connections) == ("egress_denied", 0)


async def expire(bench: Bench, run: AgentRun) -> None:
    """As if the holder had been silent for longer than its lease."""
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        values = {"lease_until": AgentRun.created_at}
        await session.execute(update(AgentRun).where(AgentRun.id == run.id).values(**values))


def door(bench: Bench, egress: Egress) -> Callable[[Tenant], ProjectHttp]:
    return lambda tenant: ProjectHttp(egress, bench.resources.secrets(tenant), 2**20)
