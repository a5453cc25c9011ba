"""A PostgreSQL that dies while a node looks something up in it: the run goes on afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy.exc import DBAPIError

from app.core.config import Settings
from app.core.ids import new_id
from app.db.migrate import migrate
from app.db.postgres.models.agents import AgentRun, AgentRunStep, RunMode, RunStatus
from app.embedded import Services, open_services
from app.resources import Resources, open_resources
from app.services.collection_service import CollectionService
from app.services.http_service import ProjectHttp
from app.services.run_service import RunRequest
from app.services.runs import execution
from app.services.runs.executor import Executor
from tests.core.peers import ok, peer, says, way_out
from tests.fixtures import settings_for
from tests.graphs import HELLO_GRAPH
from tests.services.runs.conftest import Bench, nobody_wakes

pytestmark = pytest.mark.asyncio(loop_scope="session")

_WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = $1::regclass)"
_ANSWERS_S = 30
POLICIES = {
    "retry": {"max_attempts": 3, "initial_s": 0, "on": ["rate_limit", "timeout", "server_error"]},
    "on_error": {"default": {"results": []}},
}


@dataclass(frozen=True, slots=True)
class Mortal:
    """A PostgreSQL of these tests alone, which is started again whenever it dies."""

    services: Services
    folder: Path

    @asynccontextmanager
    async def dying_amid_a_look_at(self, table: str) -> AsyncIterator[None]:
        """Lets nobody look at `table`; kills the server at the end, once somebody waits to."""
        connection = await asyncpg.connect(self.services.migration_url)
        try:
            await connection.execute(f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
            yield
            async with asyncio.timeout(_ANSWERS_S):
                while not await connection.fetchval(_WAITS, table):
                    await asyncio.sleep(0.02)
            self.kill()
        finally:
            connection.terminate()

    def kill(self) -> None:
        lock = self.folder.resolve() / "postgres" / "postmaster.pid"
        os.kill(int(lock.read_text().splitlines()[0]), signal.SIGKILL)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def mortal(services_dir: Path) -> AsyncIterator[Mortal]:
    folder = services_dir / "mortal"
    settings = Settings(data_dir=folder, _env_file=None)
    async with open_services(settings, system_dir=services_dir / "system") as services:
        await migrate(services.migration_url)
        yield Mortal(services, folder)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def resources(
    mortal: Mortal, services_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Resources]:
    services = mortal.services
    async with open_resources(
        settings_for(services, services_dir, blobs=tmp_path_factory.mktemp("blobs")),
        database_url=services.database_url,
        redis_url=services.redis_url,
        wake=nobody_wakes,
        owner="local:mortal",
    ) as opened:
        yield opened


@pytest.fixture
def executor(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Executor:
    """Whose runs go on as soon as the database is back."""
    monkeypatch.setattr(execution, "_PAUSE_S", 0.2)
    return bench.executor("local:mortal", grace_s=0)


async def published(bench: Bench, node: dict[str, Any], output: str, **bindings: Any) -> str:
    graph = HELLO_GRAPH | {
        "bindings": bindings,
        "nodes": [
            {"id": "start", "type": "start"},
            node,
            {"id": "done", "type": "end", "config": {"output": {"text": output}}},
        ],
        "edges": [{"source": "start", "target": node["id"]}, {"source": node["id"], "target": "done"}],
    }
    agent = await bench.agents().create("Test", slug=f"a{new_id().hex}", graph=graph)
    await bench.agents().publish(agent.slug)
    return agent.slug


async def outlived(bench: Bench, executor: Executor, mortal: Mortal, slug: str, table: str) -> AgentRun:
    """The agent's run after PostgreSQL died amid its look at `table`."""
    async with executor.running():
        async with mortal.dying_amid_a_look_at(table):
            request = RunRequest(input={"name": "Ada"}, mode=RunMode.STREAM)
            run = await bench.runs(executor).start(slug, request)
        async with asyncio.timeout(_ANSWERS_S):
            while (row := await found(bench, run)) is None or row.finished_at is None:
                await asyncio.sleep(0.05)
    return row


async def found(bench: Bench, run: AgentRun) -> AgentRun | None:
    """None while the database is away."""
    try:
        return await bench.run(run.id)
    except DBAPIError:
        return None


async def step(bench: Bench, run: AgentRun, node: str) -> AgentRunStep:
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        return await session.get_one(AgentRunStep, (bench.tenant.org_id, run.id, node, 1, 0))


class TestRun:
    @pytest.mark.parametrize("policies", [{}, POLICIES], ids=["strict", "lenient"])
    async def test_goes_on_after_an_outage_amid_retrieval(
        self, bench: Bench, executor: Executor, mortal: Mortal, policies: dict[str, Any]
    ) -> None:
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            collections = CollectionService(session, bench.tenant, bench.resources.embedder)
            await collections.create("Handbook", slug="handbook")
        config = {"collection": "kb", "query": "{{ inputs.name }}", "mode": "keyword"}
        search = {"id": "search", "type": "retrieve", "config": config, **policies}
        slug = await published(bench, search, "{{ search.results }}", collections={"kb": "handbook"})
        row = await outlived(bench, executor, mortal, slug, "collections")
        assert (row.status, row.output) == (RunStatus.SUCCEEDED, {"text": []})
        searched = await step(bench, row, "search")
        assert (searched.status, searched.attempts, searched.error) == ("succeeded", 1, None)
        assert [e.seq for e in await bench.events(row.id)] == list(range(1, row.last_seq + 1))

    async def test_goes_on_after_an_outage_amid_the_choice_of_a_model(
        self, bench: Bench, executor: Executor, mortal: Mortal, gate: Any
    ) -> None:
        gate.opened.set()
        ask = {"model": "main", "prompt": [{"role": "user", "content": "Well?"}]}
        node = {"id": "ask", "type": "llm", "config": ask}
        slug = await published(bench, node, "{{ ask.text }}", models={"main": gate.slug})
        row = await outlived(bench, executor, mortal, slug, "model_registry")
        assert (row.status, row.output) == (RunStatus.SUCCEEDED, {"text": "Wait is over"})

    async def test_goes_on_after_an_outage_amid_the_opening_of_a_secret(
        self, bench: Bench, executor: Executor, mortal: Mortal
    ) -> None:
        await bench.resources.secrets(bench.tenant).create("crm", SecretStr("a value"))
        async with peer(says(ok(b"done"))) as there, way_out(there.authority) as egress:
            config = {"url": there.url, "method": "POST", "headers": {"X-Key": {"secret": "crm"}}}
            slug = await published(bench, {"id": "call", "type": "http", "config": config}, "{{ call.body }}")
            secrets = bench.resources.secrets
            outfit = replace(executor.outfit, http=lambda tenant: ProjectHttp(egress, secrets(tenant), 2**20))
            executor = replace(executor, outfit=outfit)
            row = await outlived(bench, executor, mortal, slug, "secrets")
        assert (row.status, row.output) == (RunStatus.SUCCEEDED, {"text": "done"})
        assert len(there.requests) == 1
