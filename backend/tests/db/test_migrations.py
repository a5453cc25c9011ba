"""The migrations make what the models say."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection

import app.db.postgres.models  # noqa: F401
from app.core.ids import new_id
from app.db.base import Base
from app.db.connection import open_engine
from app.db.migrate import migrate, newest_revision
from app.db.upgrade import alembic_config
from app.embedded import Services
from app.rag.providers.vector_store.pgvector_tables import metadata as vector_metadata

_OWN = (
    *("vector_", "agent_run_events_", "agent_run_steps_", "agent_run_checkpoints_"),
    *("agent_run_checkpoint_writes_", "alembic_version"),
)


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or not name.startswith(_OWN),
        },
    )
    return list(compare_metadata(context, Base.metadata))


def _to(connection: Connection, revision: str) -> None:
    command.upgrade(alembic_config(connection), revision)


@asynccontextmanager
async def _at(services: Services, revision: str) -> AsyncIterator[AsyncConnection]:
    """A fresh database of this revision, as its superuser."""
    name = f"migrated_{new_id().hex}"
    async with open_engine(services.migration_url) as engine:
        admin = engine.execution_options(isolation_level="AUTOCOMMIT")
        async with admin.connect() as connection:
            await connection.execute(text(f"CREATE DATABASE {name}"))
        try:
            url = make_url(services.migration_url).set(database=name)
            async with (
                open_engine(url.render_as_string(hide_password=False), long_statements=True) as fresh,
                fresh.connect() as connection,
            ):
                await connection.run_sync(_to, revision)
                yield connection
        finally:
            async with admin.connect() as connection:
                await connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))


class TestSchema:
    def test_is_the_newest_where_alembic_says_so(self) -> None:
        """`migrate` asks the names of the files, because to import Alembic takes longer."""
        assert (
            newest_revision()
            == ScriptDirectory(str(Path(__file__).parents[2] / "alembic")).get_current_head()
        )

    async def test_is_what_the_models_declare(self, services: Services) -> None:
        async with open_engine(services.migration_url) as engine, engine.connect() as connection:
            assert await connection.run_sync(_differences) == []

    async def test_has_the_columns_that_the_vector_store_declares(self, services: Services) -> None:
        query = text("SELECT column_name FROM information_schema.columns WHERE table_name = :name")
        async with open_engine(services.migration_url) as engine, engine.connect() as connection:
            for table in vector_metadata.sorted_tables:
                stored = set((await connection.execute(query, {"name": table.name})).scalars())
                assert stored == set(table.columns.keys())

    async def test_migrating_again_changes_nothing(self, services: Services) -> None:
        await migrate(services.migration_url)
        async with open_engine(services.migration_url) as engine, engine.connect() as connection:
            assert await connection.run_sync(_differences) == []

    async def test_has_partitions_for_this_month_and_the_next_two(self, services: Services) -> None:
        query = text("SELECT count(*) FROM pg_inherits WHERE inhparent = 'agent_run_events'::regclass")
        async with open_engine(services.migration_url) as engine, engine.connect() as connection:
            assert (await connection.execute(query)).scalar_one() >= 4


class TestOrderedJson:
    """Revision 0020, which writes tables anew that others use."""

    WATCH = (
        "CREATE TABLE seen (lock_timeout text)",
        "CREATE FUNCTION look() RETURNS event_trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (current_setting('lock_timeout')); END $$",
        "CREATE EVENT TRIGGER look ON ddl_command_start WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION look()",
    )

    async def test_waits_ten_seconds_for_each_of_them_at_most(self, services: Services) -> None:
        async with _at(services, "0019") as connection:
            for statement in self.WATCH:
                await connection.execute(text(statement))
            await connection.commit()
            await connection.run_sync(_to, "0020")
            seen = (await connection.execute(text("SELECT lock_timeout FROM seen"))).scalars().all()
        assert seen == ["10s"] * 3


class TestRefreshGenerations:
    """Revision 0011, for an owner of the tables whom their walls bind: one that is no superuser."""

    ID = new_id()
    PREPARED = (
        "INSERT INTO users (id, email, name) VALUES (:id, 'a@example.test', 'A')",
        "INSERT INTO organizations (id, slug, name) VALUES (:id, 'acme', 'Acme')",
        "INSERT INTO user_sessions"
        " (id, user_id, organization_id, user_agent, address_hint, browser, expires_at)"
        " VALUES (:id, :id, :id, '', '', false, now() + interval '1 day')",
        "INSERT INTO refresh_tokens (digest, session_id) VALUES ('x', :id)",
    )

    async def test_end_the_sessions_of_before(self, services: Services) -> None:
        owner = f"owner_{new_id().hex}"
        tables = ("user_sessions", "refresh_tokens", "alembic_version")
        async with _at(services, "0010") as connection:
            for statement in self.PREPARED:
                await connection.execute(text(statement), {"id": self.ID})
            for statement in (
                f"CREATE ROLE {owner}",
                f"GRANT CREATE, USAGE ON SCHEMA public TO {owner}",
                *(f"ALTER TABLE {table} OWNER TO {owner}" for table in tables),
                f"SET ROLE {owner}",
            ):
                await connection.execute(text(statement))
            await connection.commit()
            await connection.run_sync(_to, "0011")
            await connection.execute(text("RESET ROLE"))
            found = "SELECT end_reason, ended_at IS NOT NULL, generation, refreshed_at FROM user_sessions"
            assert [tuple(row) for row in await connection.execute(text(found))] == [
                ("revoked", True, 0, None)
            ]
            walls = "SELECT relforcerowsecurity FROM pg_class WHERE relname = 'user_sessions'"
            assert (await connection.execute(text(walls))).scalar_one() is True
            await connection.execute(text(f"REASSIGN OWNED BY {owner} TO CURRENT_USER"))
            await connection.execute(text(f"DROP OWNED BY {owner}"))
            await connection.execute(text(f"DROP ROLE {owner}"))
            await connection.commit()
