"""What the operator reads when the database cannot be used: one sentence, with the remedy."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.core.errors import Misconfigured
from app.db.outage import is_disk_full, sqlstate


@contextmanager
def explained(url: str, *, setting: str) -> Iterator[None]:
    """Around the first use of the database at `url`, which `setting` names.

    Raises:
        Misconfigured: one sentence with the remedy, without the password.
    """
    try:
        yield
    except ArgumentError as error:
        raise Misconfigured(
            f"{setting} is not the URL of a PostgreSQL: it looks like "
            "postgresql://user:password@host:5432/database."
        ) from error
    except (DBAPIError, asyncpg.PostgresError, asyncpg.InterfaceError, PoolTimeout) as error:
        raise Misconfigured(_sentence(error, place_of(url), setting)) from error


def place_of(url: str) -> str:
    """`host:port/database` of a URL: what may be shown of it."""
    parsed = make_url(url)
    return f"{parsed.host or 'localhost'}:{parsed.port or 5432}/{parsed.database or ''}"


def _sentence(error: Exception, place: str, setting: str) -> str:
    state = sqlstate(error)
    origin = getattr(error, "orig", None) or error
    origin = origin.__cause__ or origin  # SQLAlchemy's copy of a driver's error begins with its class
    said = " ".join(str(origin).split())[:300] or type(origin).__name__
    if is_disk_full(error):
        return f"The disk of the database {place} is full ({said}): free some space and start again."
    if state.startswith("28"):
        return f"The database {place} refuses the login ({said}): check user and password in {setting}."
    if state == "3D000":
        return f"The database {place} does not exist ({said}): create it, or correct {setting}."
    if state == "42501":
        return f"The role in {setting} may not do this at {place} ({said}): use the owner of the schema."
    if state in ("0A000", "58P01") and "vector" in said:
        return f"The PostgreSQL at {place} has no pgvector ({said}): install pgvector 0.8 or newer."
    if state:
        return f"The database {place} refuses to work ({said}): repair it, or correct {setting}."
    return f"The database {place} does not answer ({said}): start it, or correct {setting}."
