"""Every statement that the product sends in any test names the organization whose rows it is about.

Row-level security is the second wall and would hide a forgotten condition. So the first wall is watched by
itself: outside of `Database.system_work`, each tenant table of a statement must be held to an `org_id`.
What tests send themselves may lean on the second wall.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import asyncpg
from greenlet import getcurrent
from sqlalchemy import Connection, Engine, Table, event, text
from sqlalchemy.sql import ClauseElement, visitors
from sqlalchemy.sql.dml import Delete, Insert, Update
from sqlalchemy.sql.elements import BinaryExpression, BindParameter, ColumnElement, TextClause
from sqlalchemy.sql.operators import eq, in_op
from sqlalchemy.sql.schema import Column
from sqlalchemy.sql.selectable import Alias, FromClause

import app.db.postgres.models
from app.db import connection as driver
from app.db.base import Base
from app.rag.providers.vector_store.pgvector_tables import metadata as vectors

_FETCH = asyncpg.Connection.fetch
_SYSTEM = "works_as_system"
_PRODUCT = str(Path(app.__file__).parent)
_TESTS = str(Path(__file__).parent)
_PASSING_ON = (__file__, driver.__file__)
WALLED = frozenset(
    table.name
    for metadata in (Base.metadata, vectors)
    for table in metadata.tables.values()
    if "org_id" in table.columns
)
_NAMED = re.compile(rf"\b(?:from|join|update|into)\s+({'|'.join(sorted(WALLED))})\b", re.IGNORECASE)


class TenantForgotten(AssertionError):
    """A statement on rows of tenants that does not say of which."""


@contextmanager
def watched() -> Iterator[None]:
    """Raises `TenantForgotten` from every such statement inside the block, on any engine."""
    event.listen(Engine, "before_execute", _before)
    event.listen(Engine, "commit", _ended)
    event.listen(Engine, "rollback", _ended)
    asyncpg.Connection.fetch = _checked_fetch  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        asyncpg.Connection.fetch = _FETCH  # type: ignore[assignment, method-assign]
        event.remove(Engine, "before_execute", _before)
        event.remove(Engine, "commit", _ended)
        event.remove(Engine, "rollback", _ended)


async def _checked_fetch(connection: asyncpg.Connection[Any], query: str, *args: Any, **named: Any) -> Any:
    """SQLAlchemy itself uses prepared statements: what comes here was sent on the driver, past it."""
    if _from_product():
        check(text(query))
    return await _FETCH(connection, query, *args, **named)


def _before(connection: Connection, statement: Any, *_: Any) -> None:
    if isinstance(statement, TextClause) and "SET LOCAL ROLE orrery_system" in statement.text:
        connection.info[_SYSTEM] = True
    elif isinstance(statement, ClauseElement) and not connection.info.get(_SYSTEM) and _from_product():
        check(statement)


def _from_product() -> bool:
    """Whether the nearest caller that is not a library is the product, rather than a test."""
    for frame in _callers():
        if (
            frame.f_code.co_filename.startswith((_PRODUCT, _TESTS))
            and frame.f_code.co_filename not in _PASSING_ON
        ):
            return frame.f_code.co_filename.startswith(_PRODUCT)
    return False


def _callers() -> Iterator[FrameType]:
    """The stack from here, on through the greenlets in which SQLAlchemy calls its driver."""
    greenlet, frame = getcurrent(), sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back
        if frame is None and greenlet.parent is not None:
            greenlet = greenlet.parent
            frame = greenlet.gr_frame


def _ended(connection: Connection) -> None:
    if not connection.invalidated:  # what broke takes its notes with it
        connection.info.pop(_SYSTEM, None)


def check(statement: ClauseElement) -> None:
    """Raises `TenantForgotten` naming the tables of `statement` that no condition on `org_id` holds."""
    if isinstance(statement, TextClause):
        if _NAMED.search(statement.text) and "org_id" not in statement.text:
            raise TenantForgotten(statement.text)
        return
    if isinstance(statement, Insert):
        return  # a row says whose it is, and the wall refuses any other
    free = _free(statement)
    if free:
        raise TenantForgotten(f"{', '.join(free)}: {statement}")


def _free(statement: ClauseElement) -> list[str]:
    """Tables (or their aliases) whose `org_id` is tied neither to a value nor to a table that is."""
    found: set[FromClause] = set()
    ties: list[tuple[Column[Any], ColumnElement[Any]]] = []
    for part in visitors.iterate(statement):
        if isinstance(part, Update | Delete):
            found.add(part.table)
        elif isinstance(part, Table) or (isinstance(part, Alias) and isinstance(part.element, Table)):
            found.add(part)
        elif isinstance(part, BinaryExpression) and part.operator in (eq, in_op):
            ties += _ties(part)
    walled = {table: _name(table) for table in found if _name(table) in WALLED}
    aliased = {alias.element for alias in walled if isinstance(alias, Alias)}
    direct = {_of(column) for column, _ in ties}
    wanted = {table for table in walled if table not in aliased or table in direct}
    held = _held(ties)
    return sorted(walled[table] for table in wanted if table not in held)


def _ties(part: BinaryExpression[Any]) -> Iterator[tuple[Column[Any], ColumnElement[Any]]]:
    for one, other in ((part.left, part.right), (part.right, part.left)):
        column = _column(one)
        if column is not None and column.name == "org_id":
            yield column, other


def _held(ties: Iterable[tuple[Column[Any], ColumnElement[Any]]]) -> set[FromClause]:
    """Tables tied to a value, and from there along equal columns."""
    pairs = [(_of(column), _column(other), other) for column, other in ties]
    held = {table for table, column, other in pairs if column is None and isinstance(other, BindParameter)}
    grew = True
    while grew:
        more = {table for table, column, _ in pairs if column is not None and _of(column) in held} - held
        held |= more
        grew = bool(more)
    return held


def _column(part: Any) -> Column[Any] | None:
    return part if isinstance(part, Column) or getattr(part, "table", None) is not None else None


def _of(column: Any) -> FromClause:
    """The table of a column, also where the ORM has annotated both."""
    table: Any = column.table
    return getattr(table, "_deannotate", lambda: table)() if not isinstance(table, Table) else table


def _name(table: FromClause) -> str:
    element: Any = table.element if isinstance(table, Alias) else table
    return str(getattr(element, "name", ""))
