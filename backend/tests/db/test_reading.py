"""Transactions on the driver itself: walled, read-only, and harmless to the pool however they end."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from sqlalchemy.exc import DBAPIError

from app.core.errors import NotFound
from app.db.session import Database
from tests.factories import Factory
from tests.fixtures import Running


@pytest.fixture
def database(server: Running) -> Database:
    return server.resources.database


async def serving_process(connection: asyncpg.Connection) -> int:
    return int(await connection.fetchval("SELECT pg_backend_pid()"))


class TestReading:
    async def test_sees_its_own_organization_only(self, database: Database, make: Factory) -> None:
        mine, _ = await make.member(), await make.member()
        async with database.reading(mine.tenant) as connection:
            seen = await connection.fetch("SELECT DISTINCT org_id FROM projects")
        assert [row["org_id"] for row in seen] == [mine.tenant.org_id]

    async def test_writes_nothing(self, database: Database, make: Factory) -> None:
        member = await make.member()
        with pytest.raises(DBAPIError, match="read-only"):
            async with database.reading(member.tenant) as connection:
                await connection.execute("UPDATE projects SET name = 'changed'")

    async def test_leaves_no_tenant_behind(self, database: Database, make: Factory) -> None:
        member = await make.member()
        async with database.reading(member.tenant) as connection:
            process = await serving_process(connection.driver)
        while True:  # until the pool hands the same connection out again
            async with database.engine.connect() as pooled:
                driver = (await pooled.get_raw_connection()).driver_connection
                assert driver is not None
                if await serving_process(driver) == process:
                    assert not await driver.fetchval("SELECT current_setting('app.org', true)")
                    return

    async def test_gives_the_error_of_a_statement_as_the_session_does(
        self, database: Database, make: Factory
    ) -> None:
        member = await make.member()
        with pytest.raises(DBAPIError) as caught:
            async with database.reading(member.tenant) as connection:
                await connection.fetch("SELECT 1 / 0")
        assert isinstance(caught.value.orig, asyncpg.DivisionByZeroError)
        assert not caught.value.connection_invalidated

    async def test_passes_the_callers_own_error_on(self, database: Database, make: Factory) -> None:
        member = await make.member()
        with pytest.raises(NotFound):
            async with database.reading(member.tenant):
                raise NotFound("nothing here")


class TestPool:
    async def test_keeps_the_connection_after_an_error(self, database: Database, make: Factory) -> None:
        member = await make.member()
        with pytest.raises(NotFound):
            async with database.reading(member.tenant) as connection:
                raise NotFound("nothing here")
        assert not connection.driver.is_closed()
        assert not connection.driver.is_in_transaction()

    async def test_drops_a_connection_that_was_cancelled_in_the_middle(
        self, database: Database, make: Factory
    ) -> None:
        member = await make.member()
        asking = asyncio.Event()
        used: list[asyncpg.Connection] = []

        async def ask() -> None:
            async with database.reading(member.tenant) as connection:
                used.append(connection.driver)
                asking.set()
                await connection.fetch("SELECT pg_sleep(60)")

        task = asyncio.create_task(ask())
        await asking.wait()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert used[0].is_closed()
        async with database.reading(member.tenant) as connection:
            assert await connection.driver.fetchval("SELECT 1") == 1

    async def test_drops_a_connection_that_broke(self, database: Database, make: Factory) -> None:
        member = await make.member()
        with pytest.raises(DBAPIError) as caught:
            async with database.reading(member.tenant) as connection:
                await connection.fetch("SELECT pg_terminate_backend(pg_backend_pid())")
        assert caught.value.connection_invalidated
        async with database.reading(member.tenant) as connection:
            assert await connection.driver.fetchval("SELECT 1") == 1
