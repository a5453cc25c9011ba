"""Claims of runs: fair between organizations, as cheap however many wait; and what commands leave behind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import func, select, text, update

from app.db.postgres.models.agents import AgentRun, AgentRunCommand, RunMode
from app.db.session import Database
from app.services.runs import run_claims
from app.services.runs.commands import sweep_commands
from app.services.runs.run_claims import claim_runs
from tests.factories import Factory
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")

_MANY = 400


@pytest_asyncio.fixture(autouse=True, loop_scope="session")
async def _nothing_waits_later(bench: Bench) -> AsyncIterator[None]:
    yield
    async with bench.resources.database.system_work() as session:
        await session.execute(
            update(AgentRun).where(AgentRun.finished_at.is_(None)).values(finished_at=func.now())
        )


async def _waiting(bench: Bench, count: int) -> list[UUID]:
    """Runs that wait, the oldest first."""
    one = await bench.start(bench.executor("local:one", claims=False), mode=RunMode.BACKGROUND)
    statement = text(
        """
        INSERT INTO agent_runs (org_id, id, project_id, agent_id, version_id, mode, status, input, metadata,
            fence, last_seq, created_at)
        SELECT org_id, gen_random_uuid(), project_id, agent_id, version_id, mode, status, input, metadata,
            fence, last_seq, created_at + make_interval(secs => n)
        FROM agent_runs, generate_series(1, :more) n WHERE id = :id
        """
    )
    waiting = select(AgentRun.id).where(AgentRun.finished_at.is_(None)).order_by(AgentRun.created_at)
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        await session.execute(statement, {"id": one.id, "more": count - 1})
        return list((await session.execute(waiting)).scalars())


async def _claimed(database: Database, *, limit: int) -> list[Any]:
    return await claim_runs(database, owner="local:claimer", limit=limit, lease_s=30, executing=())


async def test_take_the_oldest_first(bench: Bench) -> None:
    waiting = await _waiting(bench, 5)
    taken: list[UUID] = []
    while not taken:  # other organizations may have their turn before
        claimed = [run.id for run in await _claimed(bench.resources.database, limit=1)]
        assert claimed, "nobody's run was taken"
        taken = [run_id for run_id in claimed if run_id in waiting]
    assert taken == waiting[:1]


async def test_take_from_every_organization_however_long_the_line_of_one(bench: Bench, make: Factory) -> None:
    await _waiting(bench, _MANY)
    other = Bench(bench.resources, await make.member())
    later = await _waiting(other, 2)
    claimed = await _claimed(bench.resources.database, limit=50)
    assert {run.id for run in claimed} >= set(later)


async def test_look_at_few_of_those_that_wait(bench: Bench) -> None:
    await _waiting(bench, _MANY)
    seen: list[int] = []
    async with bench.resources.database.system_work() as session:
        for way in ("seqscan", "bitmapscan"):  # which pay for small tables only
            await session.execute(text(f"SET LOCAL enable_{way} = off"))
        connection = await session.connection()
        driver = (await connection.get_raw_connection()).driver_connection
        assert driver is not None
        explained = await driver.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {run_claims._CLAIM}", "local:claimer", 1, 30.0, []
        )
        _scanned(explained[0]["Plan"], seen)
        await session.rollback()
    assert 0 < sum(seen) < _MANY


def _scanned(plan: dict[str, Any], seen: list[int]) -> None:
    """How many of the runs that wait were read, in each place of the plan."""
    if plan.get("Index Name") == "ix_agent_runs_waiting":
        seen.append((plan["Actual Rows"] + plan.get("Rows Removed by Filter", 0)) * plan["Actual Loops"])
    for part in plan.get("Plans", ()):
        _scanned(part, seen)


async def test_commands_go_with_the_end_of_their_run(bench: Bench) -> None:
    ended, waiting = await _waiting(bench, 2)
    runs = bench.runs(bench.executor("local:one", claims=False))
    for run_id in (ended, waiting):
        await runs.cancel(run_id)
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        (await session.get_one(AgentRun, (bench.tenant.org_id, ended))).finished_at = func.now()
    async with bench.resources.database.system_work() as session:
        await sweep_commands(session)
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        left = list((await session.execute(select(AgentRunCommand.run_id))).scalars())
    assert left == [waiting]
