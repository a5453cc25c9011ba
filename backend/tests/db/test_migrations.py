"""The migrations make what the models say."""

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, text

import app.db.postgres.models  # noqa: F401
from app.db.base import Base
from app.db.connection import open_engine
from app.db.migrate import migrate
from app.embedded import Services
from app.rag.providers.vector_store.pgvector_tables import metadata as vector_metadata

_OWN = ("vector_", "agent_run_events_", "agent_run_steps_", "alembic_version")


def _differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(
        connection,
        opts={
            "compare_type": True,
            "include_name": lambda name, kind, _: kind != "table" or not name.startswith(_OWN),
        },
    )
    return list(compare_metadata(context, Base.metadata))


class TestSchema:
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
