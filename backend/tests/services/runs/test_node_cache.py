"""Results of nodes in the database: found by nobody else, gone when they should be."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from sqlalchemy import func, select, text, update

from app.agent.core.interfaces import Citation
from app.agent.core.node_cache import CachedStep
from app.core.ids import new_id
from app.db.postgres.models.agents import AgentRun, AgentVersion
from app.db.postgres.models.node_cache import CachedNode
from app.db.postgres.repositories.agents import Agents
from app.db.postgres.repositories.node_cache import sweep_cache
from app.db.session import Tenant
from app.services.runs.node_cache import NodeCaches, RunNodeCache
from tests.factories import Factory
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
TOKEN = "canary-sk-4f7a1c9e2b"
STEP = CachedStep("out", {"text": "Because."}, (Citation(1, new_id(), new_id(), "T", 0, 3, "Bec"),))


@dataclass(slots=True)
class Shelf:
    """Caches of a process, and what is in the table for one tenant."""

    bench: Bench
    caches: NodeCaches

    async def of_a_run(self) -> RunNodeCache:
        """The run is over by then: nobody else shall take it up."""
        run_id = (await self.bench.planted()).id
        async with self.caches.database.unit_of_work(self.bench.tenant) as session:
            over = (
                update(AgentRun).where(AgentRun.id == run_id).values(status="failed", finished_at=func.now())
            )
            await session.execute(over)
        return self.caches.of(self.bench.tenant, run_id)

    async def rows(self) -> list[CachedNode]:
        async with self.caches.database.unit_of_work(self.bench.tenant) as session:
            return list((await session.execute(select(CachedNode))).scalars())

    async def change(self, **values: Any) -> None:
        async with self.caches.database.unit_of_work(self.bench.tenant) as session:
            await session.execute(update(CachedNode).values(**values))


@pytest.fixture
def shelf(bench: Bench) -> Shelf:
    return Shelf(bench, NodeCaches(bench.resources.database, max_entry=10_000, max_all=10_000))


class TestResults:
    async def test_are_found_by_other_runs_of_the_version(self, shelf: Shelf) -> None:
        await (await shelf.of_a_run()).keep("k", STEP, ttl_s=60)
        assert await (await shelf.of_a_run()).find("k") == STEP
        assert await (await shelf.of_a_run()).find("other") is None

    async def test_kept_again_replace_the_old_ones(self, shelf: Shelf) -> None:
        cache = await shelf.of_a_run()
        for answer in ("old", "new"):
            await cache.keep("k", CachedStep("out", {"text": answer}), ttl_s=60)
        found = await cache.find("k")
        assert found
        assert (found.outputs, len(await shelf.rows())) == ({"text": "new"}, 1)

    async def test_whose_time_is_over_are_not_found_and_swept(self, shelf: Shelf) -> None:
        cache = await shelf.of_a_run()
        await cache.keep("k", STEP, ttl_s=60)
        await shelf.change(expires_at=func.now() - text("interval '1 second'"))
        assert await cache.find("k") is None
        async with shelf.caches.database.system_work() as session:
            await sweep_cache(session)
        assert await shelf.rows() == []

    async def test_that_are_too_large_are_not_kept(self, shelf: Shelf) -> None:
        await (await shelf.of_a_run()).keep("k", CachedStep("out", {"text": "x" * 10_000}), ttl_s=60)
        assert await shelf.rows() == []

    async def test_beyond_the_room_of_the_project_drop_the_oldest(self, shelf: Shelf) -> None:
        cache = await shelf.of_a_run()
        for number in range(70):
            await cache.keep(f"k{number}", CachedStep("out", {"text": "x" * 900}), ttl_s=60)
        sizes = [row.size for row in await shelf.rows()]
        assert sum(sizes[:1]) * 10 < sum(sizes) < 10_000 + 32 * 1100
        assert await cache.find("k0") is None
        assert await cache.find("k69")

    async def test_hold_what_postgresql_cannot(self, shelf: Shelf) -> None:
        cache = await shelf.of_a_run()
        await cache.keep("k", CachedStep("out", {"text": "a\x00b"}), ttl_s=60)
        found = await cache.find("k")
        assert found
        assert found.outputs == {"text": "a\ufffdb"}

    async def test_are_not_missed_where_the_cache_does_not_work(self, shelf: Shelf) -> None:
        cache = shelf.caches.of(shelf.bench.tenant, new_id())
        await cache.keep("k", STEP, ttl_s=60)
        assert await cache.find("k") is None


class TestWalls:
    async def other(self, bench: Bench, tenant: Tenant) -> Bench:
        return Bench(bench.resources, replace(bench.member, tenant=tenant))

    async def test_no_other_organization_finds_them(self, shelf: Shelf, make_other: Tenant) -> None:
        await (await shelf.of_a_run()).keep("k", STEP, ttl_s=60)
        theirs = Shelf(await self.other(shelf.bench, make_other), shelf.caches)
        assert await (await theirs.of_a_run()).find("k") is None
        assert await theirs.rows() == []

    async def test_no_other_project_finds_them(self, shelf: Shelf, make: Factory) -> None:
        await (await shelf.of_a_run()).keep("k", STEP, ttl_s=60)
        second = await self.other(shelf.bench, await make.project(shelf.bench.member))
        assert await (await Shelf(second, shelf.caches).of_a_run()).find("k") is None

    async def test_a_run_of_another_tenant_opens_nothing(self, shelf: Shelf, make_other: Tenant) -> None:
        mine = await shelf.of_a_run()
        await mine.keep("k", STEP, ttl_s=60)
        assert await shelf.caches.of(make_other, mine.run_id).find("k") is None

    async def test_no_other_agent_finds_them(self, shelf: Shelf) -> None:
        await (await shelf.of_a_run()).keep("k", STEP, ttl_s=60)
        shelf.bench.agent = None
        async with shelf.caches.database.unit_of_work(shelf.bench.tenant) as session:
            await session.execute(text("UPDATE agents SET slug = 'y' WHERE slug = 'x'"))
        assert await (await shelf.of_a_run()).find("k") is None

    @pytest.mark.parametrize("changed", [{"content_hash": "other"}, {"bindings": {"models": {"main": "m2"}}}])
    async def test_no_other_version_finds_them(self, shelf: Shelf, changed: dict[str, Any]) -> None:
        await (await shelf.of_a_run()).keep("k", STEP, ttl_s=60)
        async with shelf.caches.database.unit_of_work(shelf.bench.tenant) as session:
            version = AgentVersion.id == shelf.bench.version
            await session.execute(update(AgentVersion).where(version).values(**changed))
        assert await (await shelf.of_a_run()).find("k") is None


class TestErasure:
    async def test_of_the_agent_takes_them_along(self, shelf: Shelf) -> None:
        await (await shelf.of_a_run()).keep("k", STEP, ttl_s=60)
        assert shelf.bench.agent
        async with shelf.caches.database.unit_of_work(shelf.bench.tenant) as session:
            await session.execute(text("DELETE FROM agent_runs"))
            await Agents(session, shelf.bench.tenant).erase(shelf.bench.agent)
        assert await shelf.rows() == []

    async def test_of_a_document_cannot_be_undone_by_a_late_writer(self, shelf: Shelf) -> None:
        late = replace(STEP, documents=frozenset({new_id()}))
        await (await shelf.of_a_run()).keep("k", late, ttl_s=60)
        assert await shelf.rows() == []
