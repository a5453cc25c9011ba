"""Connections to the database that fall silent without breaking: they cost no lease, and no run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from sqlalchemy import URL, make_url, text

from app.db.session import Database
from app.db.system_connection import SystemConnection
from app.embedded import Services
from app.resources import open_resources
from app.services.runs.leases import RUNS, Lease, Leases
from tests.factories import Gate
from tests.fixtures import settings_for
from tests.graphs import asking_graph
from tests.services.runs.conftest import Bench, nobody_wakes
from tests.trust.proxy import Proxy, open_proxy

pytestmark = pytest.mark.asyncio(loop_scope="session")
_LEFT = "SELECT extract(epoch FROM lease_until - now()), lease_until FROM agent_runs WHERE id = :id"


@pytest_asyncio.fixture(loop_scope="session")
async def proxy(services: Services) -> AsyncIterator[Proxy]:
    place = make_url(services.database_url)
    async with open_proxy(str(place.host), int(place.port or 5432)) as proxy:
        yield proxy


def through(services: Services, proxy: Proxy) -> str:
    url: URL = make_url(services.database_url).set(host="127.0.0.1", port=proxy.port)
    return url.render_as_string(hide_password=False)


async def prolonged(bench: Bench, lease: Lease, *, times: int = 1) -> None:
    """Until the lease was prolonged so often; it must not run out meanwhile."""
    seen = None
    while times >= 0:
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            left_s, until = (await session.execute(text(_LEFT), {"id": lease.id})).one()
        assert left_s > 0, "the lease has run out"
        times -= until != seen
        seen = until
        await asyncio.sleep(0.02)


def _unexpected() -> None:
    raise AssertionError("the lease was ours")


@asynccontextmanager
async def beating(database: Database, lease: Lease) -> AsyncIterator[None]:
    leases = Leases(database, RUNS, "local:beating", 3)
    async with leases.beating(), leases.holding(lease, _unexpected):
        yield


class TestHeartbeat:
    async def test_outlives_a_connection_that_falls_silent(
        self, bench: Bench, services: Services, proxy: Proxy
    ) -> None:
        system = SystemConnection(through(services, proxy), 3)
        database = replace(bench.resources.database, system=system)
        lease = await bench.planted(owner="local:beating", lease_s=3)
        async with beating(database, lease):
            await prolonged(bench, lease)
            proxy.strand()
            await prolonged(bench, lease, times=2)
        system.close()

    async def test_does_not_wait_for_a_statement_that_is_stuck(
        self, bench: Bench, services: Services
    ) -> None:
        system = SystemConnection(services.database_url, 30)
        database = replace(bench.resources.database, system=system)
        lease = await bench.planted(owner="local:beating", lease_s=3)
        stuck = asyncio.create_task(database.system_statement("SELECT pg_sleep(20)"))
        async with beating(database, lease):
            await prolonged(bench, lease, times=2)
        assert not stuck.done()
        stuck.cancel()
        await asyncio.gather(stuck, return_exceptions=True)


class TestRun:
    async def test_ends_with_its_first_process_though_every_connection_of_that_falls_silent(
        self,
        bench: Bench,
        services: Services,
        services_dir: Path,
        tmp_path: Path,
        proxy: Proxy,
        gate: Gate,
    ) -> None:
        settings = settings_for(services, services_dir, blobs=tmp_path)
        assert settings.lease_s < settings.database_timeout_s
        far = open_resources(
            settings,
            database_url=through(services, proxy),
            redis_url=services.redis_url,
            wake=nobody_wakes,
            owner="local:far",
        )
        async with far as resources:
            resources.providers[gate.slug] = lambda _: gate
            executor = resources.executor
            async with executor.running():
                run = await Bench(resources, bench.member).start(executor, asking_graph(gate.slug))
                await gate.entered.wait()
                proxy.strand()
                gate.opened.set()
                assert await executor.finished(run.id, timeout_s=30)
            proxy.drop()  # nobody says goodbye to silent connections
        assert (await bench.run(run.id)).fence == 1
