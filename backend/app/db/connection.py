"""The engine: one pool per process, on asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias

import asyncpg
from sqlalchemy import event, make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

if TYPE_CHECKING:
    from asyncpg import Connection, Record

    DriverConnection: TypeAlias = Connection[Record]
else:
    DriverConnection: TypeAlias = asyncpg.Connection  # generic for type checkers only

_REST_S = 2.0
_GOODBYE_S = 5.0
_IDLE_PER_TIMEOUT = 2


def async_url(url: str) -> str:
    """`url` for asyncpg, whichever PostgreSQL scheme it came with."""
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


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
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=timeout_s,
        hide_parameters=True,  # they would be in every logged error: texts, digests, hashes
        connect_args=connect,
    )
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
    connection: DriverConnection = pooled.driver_connection  # type: ignore[assignment]
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
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        lost = connection.is_closed()
        raise DBAPIError(None, None, error, hide_parameters=True, connection_invalidated=lost) from error
    finally:
        if settled:
            pooled.close()
        else:
            pooled.invalidate()
