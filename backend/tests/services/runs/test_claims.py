"""Claims: fair shares of what waits, and what fell silent by itself."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import text

from app.core.ids import new_id
from app.db.postgres.models.jobs import Job, WorkItem
from app.db.postgres.repositories.work import Claim, WorkItems
from app.db.session import Database, Tenant
from app.services.runs.claims import Claimer
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(slots=True)
class Line:
    """A queue of its own."""

    database: Database
    name: str = field(default_factory=lambda: f"q-{new_id().hex}")

    async def add(
        self, tenant: Tenant, count: int = 1, *, in_job: bool = False, size_bytes: int = 0
    ) -> list[UUID]:
        org, project, job = tenant.org_id, tenant.project, new_id() if in_job else None
        made = [new_id() for _ in range(count)]
        async with self.database.unit_of_work(tenant) as session:
            if job is not None:
                session.add(Job(org_id=org, id=job, project_id=project, kind="test"))
                await session.flush()
            session.add_all(
                WorkItem(
                    org_id=org,
                    id=item,
                    project_id=project,
                    queue=self.name,
                    kind="test",
                    subject_id=item,
                    job_id=job,
                    size_bytes=size_bytes,
                )
                for item in made
            )
        return made

    async def waiting(self, count: int = 1, **given: int) -> list[Claim]:
        async with self.database.system_work() as session:
            claimer = Claimer(self.name, "one", 30, {"test"})
            claims = [await claimer.waiting(session, **given) for _ in range(count)]
            return [claim for claim in claims if claim]

    async def silent(self, *, alone: bool = True, for_s: float = 0) -> Claim | None:
        async with self.database.system_work() as session:
            return await Claimer(self.name, "two", 30, {"test"}).silent(session, alone=alone, for_s=for_s)

    async def change(self, what: str) -> None:
        async with self.database.system_work() as session:
            await session.execute(
                text(f"UPDATE work_items SET {what} WHERE queue = :queue"), {"queue": self.name}
            )

    async def silence(self, seconds: int = 1) -> None:
        """Whoever holds something has been dead for so long."""
        await self.change(f"lease_until = lease_until - interval '{30 + seconds} seconds'")


@pytest.fixture
def line(database: Database) -> Line:
    return Line(database)


class TestShares:
    async def test_of_tenants_are_equal_however_long_their_queues(
        self, line: Line, tenant: Tenant, make_other: Tenant
    ) -> None:
        await line.add(tenant, 30)
        await line.add(make_other, 3)
        claims = await line.waiting(6)
        assert Counter(claim.org_id for claim in claims) == {tenant.org_id: 3, make_other.org_id: 3}

    async def test_of_jobs_are_equal_within_a_tenant(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant, 30, in_job=True)
        later = set(await line.add(tenant, 2, in_job=True))
        claims = await line.waiting(4)
        assert {claim.id for claim in claims} >= later

    async def test_of_a_tenant_do_not_grow_with_its_jobs(
        self, line: Line, tenant: Tenant, make_other: Tenant
    ) -> None:
        for _ in range(10):
            await line.add(tenant, 2, in_job=True)
        await line.add(make_other, 4)
        claims = await line.waiting(8)
        assert Counter(claim.org_id for claim in claims) == {tenant.org_id: 4, make_other.org_id: 4}

    async def test_that_nobody_uses_are_given_to_others(
        self, line: Line, tenant: Tenant, make_other: Tenant
    ) -> None:
        await line.add(tenant, 5)
        await line.add(make_other, 1)
        assert len(await line.waiting(10)) == 6

    async def test_are_worked_off_oldest_first(self, line: Line, tenant: Tenant) -> None:
        added = await line.add(tenant, 5, in_job=True)
        assert [claim.id for claim in await line.waiting(5)] == added

    async def test_with_one_place_starve_nobody(self, line: Line, tenant: Tenant, make_other: Tenant) -> None:
        """Lots decide where nobody holds anything: 40 lost in a row would be a chance of 1 in 2^40."""
        await line.add(tenant, 60)
        (mine,) = await line.add(make_other, 1)
        for _ in range(40):
            (claim,) = await line.waiting(1)
            if claim.id == mine:
                return
            async with line.database.unit_of_work(claim.tenant) as session:
                await WorkItems(session, claim.tenant).cancel_open([claim.subject_id])
        raise AssertionError("it was starved")


class TestSize:
    async def test_is_asked_for_at_most(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant, 3, size_bytes=1000)
        (small,) = await line.add(tenant, 1, size_bytes=10)
        assert [claim.id for claim in await line.waiting(4, most_bytes=100)] == [small]

    async def test_is_told(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant, 1, size_bytes=1000)
        assert [claim.size_bytes for claim in await line.waiting()] == [1000]


class TestSilent:
    async def test_items_are_not_waiting(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant)
        await line.waiting()
        await line.silence()
        assert await line.waiting() == []

    async def test_item_is_not_charged_for_a_death_in_company(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant)
        await line.waiting()
        await line.silence()
        found = await line.silent()
        assert found
        assert (found.attempts, found.deaths, found.alone) == (1, 1, True)

    async def test_item_is_charged_for_a_death_when_it_was_alone(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant)
        await line.waiting()
        for _ in range(2):
            await line.silence()
            found = await line.silent()
        assert found
        assert (found.attempts, found.deaths) == (2, 2)

    async def test_items_of_one_size_are_taken_longest_silent_first(self, line: Line, tenant: Tenant) -> None:
        first, second = await line.add(tenant, 2)
        await line.waiting(2)
        await line.silence()
        await line.change(f"lease_until = lease_until + (id = '{first}')::int * interval '0.5 s'")
        found = await line.silent()
        assert found
        assert found.id == second

    async def test_items_are_taken_smallest_first(self, line: Line, tenant: Tenant) -> None:
        """Each is worked on alone, and a large one takes long."""
        first, second = await line.add(tenant, 2)
        await line.waiting(2)
        await line.silence()
        await line.change(f"size_bytes = 1 + (id = '{first}')::int")
        await line.change(f"lease_until = lease_until + (id = '{second}')::int * interval '0.5 s'")
        found = await line.silent()
        assert found
        assert found.id == second

    async def test_item_is_left_to_an_idle_worker_for_a_while(self, line: Line, tenant: Tenant) -> None:
        await line.add(tenant)
        await line.waiting()
        await line.silence(5)
        assert await line.silent(alone=False, for_s=60) is None
        await line.silence(60)
        found = await line.silent(alone=False, for_s=60)
        assert found
        assert not found.alone

    async def test_item_that_fails_afterwards_is_trusted_again(self, line: Line, bench: Bench) -> None:
        await line.add(bench.tenant)
        await line.waiting()
        await line.silence()
        found = await line.silent()
        assert found
        async with line.database.unit_of_work(bench.tenant) as session:
            await WorkItems(session, bench.tenant).retry_later(found, delay_s=0, error=None)
        (again,) = await line.waiting()
        assert (again.alone, again.deaths, again.attempts) == (False, 0, 2)
