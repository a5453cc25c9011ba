"""What it looks like when the database is away, as opposed to a statement that is wrong."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_STATES = ("08", "53", "57P")
"""SQLSTATE classes: connection lost, out of resources, shutting down or not yet up."""


def is_outage(error: BaseException) -> bool:
    """Whether the same statement may succeed once the database is back.

    A bare `TimeoutError` or `ConnectionError` is not the database's: those of its connections are
    `DBAPIError`s.
    """
    if not isinstance(error, DBAPIError):
        return isinstance(error, PoolTimeout)
    unreachable = error.connection_invalidated or isinstance(error.orig, OSError)
    return unreachable or sqlstate(error).startswith(_STATES)


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
