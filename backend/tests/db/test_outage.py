"""What counts as an outage of the database: what came out of it, whichever way one asks, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from socket import gaierror
from typing import Any

import pytest
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.db.connection import DriverConnection, open_engine
from app.db.outage import is_outage
from app.db.session import Database, Tenant, make_database
from app.embedded import Services
from tests.db.test_effect import begun
from tests.trust.proxy import Proxy, open_proxy

TENANT = Tenant(new_id())
Way = Callable[[Database], AbstractAsyncContextManager[AsyncSession | DriverConnection]]


async def nobody(queue: str) -> None:
    """Nothing is queued here."""


@asynccontextmanager
async def of_the_effect(database: Database) -> AsyncIterator[DriverConnection]:
    async with begun(database, TENANT), database.reading(TENANT) as connection:
        yield connection


WAYS: dict[str, Way] = {
    "session": lambda database: database.unit_of_work(TENANT),
    "system": Database.system_work,
    "driver": lambda database: database.reading(TENANT),
    "effect": of_the_effect,
}
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def ask(opened: Any, statement: str) -> None:
    """Sends `statement` in one or the other way."""
    if isinstance(opened, DriverConnection):
        await opened.fetch(statement)
    else:
        await opened.execute(text(statement))


@asynccontextmanager
async def database_at(url: str, **settings: Any) -> AsyncIterator[Database]:
    async with open_engine(url, **{"pool_size": 1, "timeout_s": 0.5} | settings) as engine:
        yield make_database(engine, nobody)


async def failure(way: Way, database: Database, statement: str = "SELECT 1") -> Exception:
    with pytest.raises((DBAPIError, PoolTimeout)) as caught:
        async with way(database) as opened:
            await ask(opened, statement)
    return caught.value


async def raising(way: Way, database: Database, error: Exception) -> None:
    async with way(database) as opened:
        await ask(opened, "SELECT 1")
        raise error


@asynccontextmanager
async def behind_proxy(services: Services) -> AsyncIterator[tuple[Database, Proxy]]:
    url = make_url(services.database_url)
    assert url.host
    assert url.port
    async with open_proxy(url.host, url.port) as proxy:
        near = url.set(host="127.0.0.1", port=proxy.port).render_as_string(hide_password=False)
        async with database_at(near) as database:
            yield database, proxy


@ways
class TestOutage:
    @pytest.mark.parametrize("host", ["127.0.0.1:9", "nobody.invalid:5432", "[::1]:9"])
    async def test_is_a_host_that_does_not_answer(self, way: Way, host: str) -> None:
        async with database_at(f"postgresql://orrery_app:x@{host}/orrery") as database:
            error = await failure(way, database)
        assert isinstance(error, DBAPIError)
        assert is_outage(error)

    async def test_is_a_connection_that_cannot_be_opened_in_time(self, way: Way, services: Services) -> None:
        async with behind_proxy(services) as (database, proxy):
            proxy.mute = True
            assert is_outage(await failure(way, database))

    async def test_is_a_statement_that_takes_too_long(self, way: Way, services: Services) -> None:
        async with database_at(services.database_url) as database:
            error = await failure(way, database, "SELECT pg_sleep(20)")
            assert isinstance(error, DBAPIError)
            assert is_outage(error)
            async with way(database) as opened:  # the connection, or another, is there again
                await ask(opened, "SELECT 1")

    async def test_is_a_connection_that_breaks(self, way: Way, services: Services) -> None:
        async with behind_proxy(services) as (database, proxy):
            failing = asyncio.create_task(failure(way, database, "SELECT pg_sleep(20)"))
            await asyncio.sleep(0.2)
            proxy.drop()
            assert is_outage(await failing)

    async def test_is_a_pool_without_a_free_connection(self, way: Way, services: Services) -> None:
        async with database_at(services.database_url) as database, database.no_ones_work() as session:
            await session.execute(text("SELECT 1"))
            assert is_outage(await failure(way, database))

    async def test_is_not_a_statement_that_is_wrong(self, way: Way, services: Services) -> None:
        async with database_at(services.database_url) as database:
            error = await failure(way, database, "SELECT 1 / 0")
        assert isinstance(error, DBAPIError)
        assert not is_outage(error)

    @pytest.mark.parametrize("stray", [TimeoutError, ConnectionResetError, ConnectionRefusedError, gaierror])
    async def test_is_not_what_others_raise_within_a_transaction(
        self, way: Way, stray: type[OSError], services: Services
    ) -> None:
        async with database_at(services.database_url) as database:
            with pytest.raises(stray) as caught:
                await raising(way, database, stray("of something else"))
        assert not is_outage(caught.value)
