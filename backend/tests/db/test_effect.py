"""`Effect`: units of work of one request as savepoints of one transaction, kept or taken back whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.errors import Conflict
from app.core.ids import new_id
from app.db.postgres.models.identity import Project, User
from app.db.postgres.repositories.identity import Identities, Projects
from app.db.session import Database, Effect, Tenant, after_commit, wake_after
from tests.factories import Factory, Member
from tests.fixtures import Running


@dataclass(slots=True)
class Once:
    """Counts what it is asked; refuses the first `busy` claims."""

    busy: int = 0
    claims: int = 0
    recorded: list[UUID] = field(default_factory=list)
    endings: int = 0

    async def claim(self, connection: AsyncConnection) -> bool:
        self.claims += 1
        return self.claims > self.busy

    async def record(self, connection: AsyncConnection, subject_id: UUID) -> None:
        self.recorded.append(subject_id)

    def ended(self) -> None:
        self.endings += 1


@pytest.fixture
def database(server: Running) -> Database:
    return server.resources.database


@asynccontextmanager
async def begun(database: Database, tenant: Tenant, once: Once | None = None) -> AsyncIterator[Effect]:
    effect = Effect(database, tenant, once or Once())
    await effect.begin()
    try:
        yield effect
    finally:
        await effect.close()


async def add_project(session: AsyncSession, tenant: Tenant, slug: str) -> Project:
    project = Project(org_id=tenant.org_id, id=new_id(), slug=slug, name=slug)
    return await Projects(session, tenant).add(project)


async def slugs(database: Database, tenant: Tenant) -> set[str]:
    async with database.unit_of_work(tenant) as session:
        statement = select(Project.slug).where(Project.org_id == tenant.org_id)
        return set((await session.execute(statement)).scalars())


async def seen_elsewhere(database: Database, tenant: Tenant) -> set[str]:
    """By another task, whose units of work are transactions of their own."""
    return await asyncio.create_task(slugs(database, tenant))


class TestUnits:
    async def test_see_each_other_and_nobody_sees_them_before_they_are_kept(
        self, database: Database, member: Member
    ) -> None:
        tenant = member.tenant
        async with begun(database, tenant) as effect:
            for slug in ("one", "two"):
                async with database.unit_of_work(tenant) as session:
                    await add_project(session, tenant, slug)
            assert await slugs(database, tenant) == {"default", "one", "two"}
            assert await seen_elsewhere(database, tenant) == {"default"}
            await effect.keep()
        assert await slugs(database, tenant) == {"default", "one", "two"}

    async def test_are_taken_back_together(self, database: Database, member: Member) -> None:
        async with begun(database, member.tenant), database.unit_of_work(member.tenant) as session:
            await add_project(session, member.tenant, "one")
        assert await slugs(database, member.tenant) == {"default"}

    async def test_fail_alone(self, database: Database, member: Member) -> None:
        tenant = member.tenant
        async with begun(database, tenant) as effect:
            with suppress(Conflict):
                async with database.unit_of_work(tenant) as session:
                    await add_project(session, tenant, "lost")
                    await add_project(session, tenant, "default")
            async with database.unit_of_work(tenant) as session:
                await add_project(session, tenant, "kept")
            await effect.keep()
        assert await slugs(database, tenant) == {"default", "kept"}

    async def test_of_another_organization_do_not_join(
        self, database: Database, member: Member, make: Factory
    ) -> None:
        stranger = await make.member()
        async with begun(database, member.tenant):
            with pytest.raises(RuntimeError, match="another organization"):
                async with database.unit_of_work(stranger.tenant):
                    pass

    async def test_are_on_their_own_afterwards(self, database: Database, member: Member) -> None:
        async with begun(database, member.tenant) as effect:
            await effect.keep()
            async with database.unit_of_work(member.tenant) as session:
                await add_project(session, member.tenant, "later")
        assert "later" in await slugs(database, member.tenant)

    async def test_wake_queues_when_they_are_kept(self, database: Database, member: Member) -> None:
        woken: list[str] = []

        async def wake(queue: str) -> None:
            woken.append(queue)

        heard = Database(database.engine, database.sessions, wake)
        async with begun(heard, member.tenant) as effect:
            async with heard.unit_of_work(member.tenant) as session:
                wake_after(session, "ingest")
            assert woken == []
            await effect.keep()
        assert woken == ["ingest"]

    @pytest.mark.parametrize("kept", [True, False])
    async def test_call_what_waits_for_the_commit(
        self, database: Database, member: Member, kept: bool
    ) -> None:
        called: list[str] = []
        async with begun(database, member.tenant) as effect:
            async with database.unit_of_work(member.tenant) as session:
                after_commit(session, lambda: called.append("it"))
            assert called == []
            if kept:
                await effect.keep()
        assert called == (["it"] if kept else [])


class TestAlone:
    async def test_a_unit_calls_what_waits_for_its_commit(self, database: Database, member: Member) -> None:
        called: list[str] = []
        async with database.unit_of_work(member.tenant) as session:
            after_commit(session, lambda: called.append("kept"))
            assert called == []
        with suppress(Conflict):
            async with database.unit_of_work(member.tenant) as session:
                after_commit(session, lambda: called.append("lost"))
                raise Conflict("taken back")
        assert called == ["kept"]


class TestOtherWork:
    async def test_of_the_system_joins_and_gives_its_role_up(
        self, database: Database, member: Member
    ) -> None:
        user = User(id=new_id(), email=f"{new_id().hex}@example.test")
        async with begun(database, member.tenant):
            async with database.system_work() as session:
                await Identities(session).add(user)
            async with database.unit_of_work(member.tenant) as session:
                role = (await session.execute(text("SELECT current_user"))).scalar_one()
            assert role == "orrery_app"
        async with database.system_work() as session:
            assert await session.get(User, user.id) is None

    async def test_of_the_system_gives_its_role_up_when_it_fails(
        self, database: Database, member: Member
    ) -> None:
        async with begun(database, member.tenant):
            with pytest.raises(KeyError):
                async with database.system_work():
                    raise KeyError("refused")
            async with database.unit_of_work(member.tenant) as session:
                assert (await session.execute(text("SELECT current_user"))).scalar_one() == "orrery_app"

    async def test_that_reads_on_the_driver_joins(self, database: Database, member: Member) -> None:
        tenant = member.tenant
        async with begun(database, tenant):
            async with database.unit_of_work(tenant) as session:
                await add_project(session, tenant, "one")
            async with database.reading(tenant) as connection:
                rows = await connection.fetch("SELECT slug FROM projects WHERE org_id = $1", tenant.org_id)
        assert {row["slug"] for row in rows} == {"default", "one"}


class TestBeginning:
    async def test_waits_without_a_connection(self, database: Database, member: Member) -> None:
        once = Once(busy=3)
        async with begun(database, member.tenant, once):
            assert once.claims == 4

    async def test_may_be_late(self, database: Database, member: Member) -> None:
        tenant, once = member.tenant, Once()
        effect = Effect(database, tenant, once)
        effect.offer()
        async with database.unit_of_work(tenant) as session:
            await add_project(session, tenant, "before")
        assert once.claims == 0
        async with database.unit_of_work(tenant, effect=True) as session:
            await add_project(session, tenant, "within")
        assert once.claims == 1
        await effect.close()
        assert await slugs(database, tenant) == {"default", "before"}

    async def test_ends_once_it_is_refused(self, database: Database, member: Member) -> None:
        class Refusing(Once):
            async def claim(self, connection: AsyncConnection) -> bool:
                raise Conflict("done before")

        once = Refusing()
        effect = Effect(database, member.tenant, once)
        with pytest.raises(Conflict):
            await effect.begin()
        assert (effect.over, once.endings) == (True, 1)


async def test_what_outlives_the_request_is_recorded_and_kept_with_its_unit(
    database: Database, member: Member
) -> None:
    once = Once()
    async with begun(database, member.tenant, once) as effect:
        made = new_id()
        async with database.writing(member.tenant, subject_id=made) as connection:
            await connection.fetch(
                "INSERT INTO projects (org_id, id, slug, name, settings) VALUES ($1, $2, 'run', 'Run', '{}')",
                *(member.tenant.org_id, made),
            )
        assert (effect.kept, once.recorded) == (True, [made])
        assert "run" in await seen_elsewhere(database, member.tenant)
