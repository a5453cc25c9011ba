"""What it looks like when the database is away, as opposed to a statement that is wrong."""

from __future__ import annotations

from socket import gaierror

from asyncpg import PostgresError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_STATES = ("08", "53", "57P")
"""SQLSTATE classes: connection lost, out of resources, shutting down or not yet up."""


def is_outage(error: BaseException) -> bool:
    """Whether the same statement may succeed once the database is back."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    if isinstance(error, DBAPIError | PostgresError):  # the latter from connecting, where nothing translates
        return sqlstate(error).startswith(_STATES)
    if type(error) is OSError:  # asyncio's, when a host has several addresses and none answers
        return str(error).startswith("Multiple exceptions")
    return isinstance(error, PoolTimeout | ConnectionError | TimeoutError | gaierror)


def is_disk_full(error: BaseException) -> bool:
    """Whether PostgreSQL found no room; some must be freed before anything is stored."""
    return sqlstate(error) == "53100"


def is_lost_race(error: BaseException) -> bool:
    """Whether another transaction won: a deadlock, or what cannot be serialized."""
    return isinstance(error, DBAPIError) and sqlstate(error) in ("40001", "40P01")


def sqlstate(error: BaseException) -> str:
    """The SQLSTATE of an error from PostgreSQL, else an empty text."""
    origin = error.orig if isinstance(error, DBAPIError) else error
    return str(getattr(origin, "sqlstate", None) or "")
