"""The engine: one pool per process, on asyncpg.

Whatever goes wrong here is a `DBAPIError`, also where neither asyncpg nor SQLAlchemy says so (a host that is
not found, a connection refused, a statement that takes too long): above, a bare `OSError` or `TimeoutError`
is of something else.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TypeVar

import asyncpg
from sqlalchemy import AsyncAdaptedQueuePool, event, make_url
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from asyncpg import Connection, Record
    from sqlalchemy.engine import ExceptionContext
    from sqlalchemy.pool import PoolProxiedConnection

_OF_DRIVER = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)  # time-outs are among the last
T = TypeVar("T")
_REST_S = 2.0
_GOODBYE_S = 5.0
_IDLE_PER_TIMEOUT = 2


def async_url(url: str) -> str:
    """`url` for asyncpg, whichever PostgreSQL scheme it came with."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


async def in_database_terms(work: Awaitable[T]) -> T:
    """`work` of the driver, with its errors as `DBAPIError`."""
    try:
        return await work
    except _OF_DRIVER as error:
        raise _database_error(error, lost=True) from error


def _database_error(error: Exception, *, lost: bool = False) -> DBAPIError:
    return DBAPIError(None, None, error, hide_parameters=True, connection_invalidated=lost)


class _Pool(AsyncAdaptedQueuePool):
    __module__ = AsyncAdaptedQueuePool.__module__  # by which its logger is called, and kept quiet

    def connect(self) -> PoolProxiedConnection:
        try:
            return super().connect()
        except (*_OF_DRIVER, AsyncAdapt_asyncpg_dbapi.Error) as error:
            raise _database_error(error) from error


def _name_the_database(engine: AsyncEngine) -> None:
    """SQLAlchemy translates what asyncpg calls its own errors, and nothing else."""

    @event.listens_for(engine.sync_engine, "handle_error")
    def translate(context: ExceptionContext) -> DBAPIError | None:
        error = context.original_exception
        return _database_error(error) if isinstance(error, OSError) else None


@dataclass(frozen=True, slots=True)
class DriverConnection:
    """asyncpg's connection without SQLAlchemy before it, but with its errors."""

    driver: Connection[Record]

    @classmethod
    def of(cls, pooled: PoolProxiedConnection) -> Self:
        driver: Any = pooled.driver_connection
        return cls(driver)

    async def fetch(self, query: str, *args: object) -> list[Record]:
        try:
            return await self.driver.fetch(query, *args)
        except _OF_DRIVER as error:
            raise _database_error(error, lost=self.driver.is_closed()) from error

    async def execute(self, statements: str) -> None:
        try:
            await self.driver.execute(statements)
        except _OF_DRIVER as error:
            raise _database_error(error, lost=self.driver.is_closed()) from error


def _ping_after_rest(engine: AsyncEngine) -> None:
    """Asks a connection that has rested for a while whether it still lives, before it is used.

    `pool_pre_ping` would ask every time: three round trips per transaction.
    """
    pool, dialect = engine.sync_engine.pool, engine.sync_engine.dialect

    @event.listens_for(pool, "checkin")
    def note(_: Any, record: Any) -> None:
        record.info["rests_since"] = monotonic()

    @event.listens_for(pool, "checkout")
    def ping(connection: Any, record: Any, _: Any) -> None:
        if monotonic() - record.info.get("rests_since", monotonic()) < _REST_S:
            return
        try:
            dialect.do_ping(connection)
        except Exception as error:
            raise DisconnectionError("the connection broke while it rested") from error


@asynccontextmanager
async def open_engine(
    url: str,
    *,
    pool_size: int = 10,
    timeout_s: float = 30,
    prepared: bool = True,
    long_statements: bool = False,
) -> AsyncIterator[AsyncEngine]:
    """A pool of `pool_size` connections, disposed on exit. `long_statements` may outlast `timeout_s`.

    `prepared=False` keeps prepared statements off, as transaction poolers (PgBouncer, Supavisor) need.
    """
    connect: dict[str, Any] = {"timeout": timeout_s}
    if not long_statements:
        connect["command_timeout"] = timeout_s
        if prepared:  # poolers refuse settings of a connection
            # A process that was stopped amid a transaction must not hold its locks for ever.
            idle_ms = round(timeout_s * _IDLE_PER_TIMEOUT * 1000)
            connect["server_settings"] = {"idle_in_transaction_session_timeout": str(idle_ms)}
    if not prepared:
        connect |= {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    engine = create_async_engine(
        async_url(url),
        poolclass=_Pool,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_s,
        hide_parameters=True,  # they would be in every logged error: texts, digests, hashes
        connect_args=connect,
    )
    _name_the_database(engine)
    _ping_after_rest(engine)
    try:
        yield engine
    finally:
        # Connections are closed one after the other, and a server that does not answer says no goodbye.
        with suppress(TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                await engine.dispose()


@asynccontextmanager
async def driver_transaction(engine: AsyncEngine, begin: str) -> AsyncIterator[DriverConnection]:
    """A transaction on a pooled connection without SQLAlchemy between; `begin` opens it, in one round trip.

    Committed on leaving, rolled back on an error. A connection whose state is not certain afterwards
    (cancelled in the middle, lost) does not go back into the pool.
    """
    pooled = await engine.raw_connection()
    connection = DriverConnection.of(pooled)
    settled = False
    try:
        try:
            await connection.execute(begin)
            yield connection
        except Exception:
            await connection.execute("ROLLBACK")
            settled = True
            raise
        await connection.execute("COMMIT")
        settled = True
    finally:
        if settled:
            pooled.close()
        else:
            pooled.invalidate()
