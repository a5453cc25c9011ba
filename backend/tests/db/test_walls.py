"""Row-level security: what the runtime role can and cannot see."""

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

import app.db.postgres.models as models
from app.core.errors import Misconfigured
from app.core.ids import new_id
from app.db.base import Base
from app.db.connection import open_engine
from app.db.migrate import check_runtime_role
from app.db.session import Database, Tenant, wake_after
from app.embedded import Services
from tests.factories import Factory
from tests.fixtures import Running


@pytest.fixture
def database(server: Running) -> Database:
    return server.resources.database


class TestEveryTable:
    async def test_forces_row_level_security(self, services: Services) -> None:
        query = text(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = 'public' AND relkind IN ('r', 'p') AND NOT relispartition "
            "AND NOT (relrowsecurity AND relforcerowsecurity)"
        )
        async with open_engine(services.migration_url) as engine, engine.connect() as connection:
            assert list((await connection.execute(query)).scalars()) == ["alembic_version"]

    def test_keys_of_tenant_tables_begin_with_the_organization(self) -> None:
        for table in Base.metadata.sorted_tables:
            if "org_id" in table.columns:
                assert next(iter(table.primary_key.columns)).name == "org_id", table.name


class TestTenant:
    async def test_sees_its_own_rows_only(self, database: Database, make: Factory) -> None:
        mine, other = await make.member(), await make.member()
        async with database.unit_of_work(mine.tenant) as session:
            seen = set((await session.execute(select(models.Project.org_id))).scalars())
        assert seen == {mine.tenant.org_id}
        assert other.tenant.org_id not in seen

    async def test_sees_nothing_without_an_organization(self, database: Database) -> None:
        async with database.sessions() as session, session.begin():
            count = (await session.execute(select(func.count()).select_from(models.Project))).scalar_one()
        assert count == 0

    async def test_cannot_write_into_another_organization(self, database: Database, make: Factory) -> None:
        mine, other = await make.member(), await make.member()
        with pytest.raises(DBAPIError, match="row-level security"):
            async with database.unit_of_work(mine.tenant) as session:
                session.add(
                    models.Project(org_id=other.tenant.org_id, id=new_id(), slug="planted", name="Planted")
                )

    async def test_cannot_change_rows_of_another_organization(
        self, database: Database, make: Factory
    ) -> None:
        mine, other = await make.member(), await make.member()
        async with database.unit_of_work(mine.tenant) as session:
            done = await session.execute(
                text("UPDATE projects SET name = 'stolen' WHERE org_id = :org RETURNING id"),
                {"org": other.tenant.org_id},
            )
            assert done.all() == []

    async def test_cannot_read_users(self, database: Database, make: Factory) -> None:
        mine = await make.member()
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.unit_of_work(mine.tenant) as session:
                await session.execute(select(models.User.id))

    async def test_is_forgotten_when_the_transaction_ends(self, database: Database, make: Factory) -> None:
        mine = await make.member()
        async with database.unit_of_work(mine.tenant) as session:
            await session.execute(select(models.Project.id))
        async with database.sessions() as session, session.begin():
            left = await session.execute(text("SELECT current_setting('app.org', true)"))
            assert not left.scalar()


class TestSystemRole:
    async def test_cannot_read_what_is_not_listed(self, database: Database) -> None:
        with pytest.raises(DBAPIError, match="permission denied"):
            async with database.system_work() as session:
                await session.execute(select(models.Document.id))

    async def test_ends_with_the_transaction(self, database: Database) -> None:
        async with database.system_work() as session:
            inside = (await session.execute(text("SELECT current_user"))).scalar_one()
        async with database.sessions() as session, session.begin():
            outside = (await session.execute(text("SELECT current_user"))).scalar_one()
        assert (inside, outside) == ("orrery_system", "orrery_app")


class TestRuntimeRole:
    async def test_of_the_application_is_accepted(self, database: Database) -> None:
        await check_runtime_role(database.engine)

    async def test_that_is_superuser_is_refused(self, services: Services) -> None:
        async with open_engine(services.migration_url) as engine:
            with pytest.raises(Misconfigured, match="superuser"):
                await check_runtime_role(engine)


class TestUnitOfWork:
    async def test_wakes_queues_after_the_commit(self, database: Database, make: Factory) -> None:
        mine = await make.member()
        seen: list[int] = []

        async def wake(queue: str) -> None:
            async with watching.unit_of_work(mine.tenant) as session:
                rows = await session.execute(select(models.Job.id))
                seen.append(len(rows.all()))

        watching = Database(database.engine, database.sessions, wake)
        async with watching.unit_of_work(mine.tenant) as session:
            _plant_job(session, mine.tenant)
            wake_after(session, "ingest")
            assert seen == []
        assert seen == [1]

    async def test_wakes_nobody_when_it_fails(self, database: Database, make: Factory) -> None:
        mine = await make.member()
        woken: list[str] = []

        async def wake(queue: str) -> None:
            woken.append(queue)

        watching = Database(database.engine, database.sessions, wake)

        async def fail() -> None:
            async with watching.unit_of_work(mine.tenant) as session:
                wake_after(session, "ingest")
                raise ValueError("broken")

        with pytest.raises(ValueError, match="broken"):
            await fail()
        assert woken == []

    async def test_survives_a_broker_that_is_gone(self, database: Database, make: Factory) -> None:
        mine = await make.member()

        async def wake(queue: str) -> None:
            raise ConnectionError(queue)

        watching = Database(database.engine, database.sessions, wake)
        async with watching.unit_of_work(mine.tenant) as session:
            _plant_job(session, mine.tenant)
            wake_after(session, "ingest")
        async with watching.unit_of_work(mine.tenant) as session:
            assert len((await session.execute(select(models.Job.id))).all()) == 1


def _plant_job(session: AsyncSession, tenant: Tenant) -> None:
    session.add(models.Job(org_id=tenant.org_id, id=new_id(), project_id=tenant.project, kind="test"))
