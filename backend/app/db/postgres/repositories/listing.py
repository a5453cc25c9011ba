"""Pages of a table, by any of the keys that its list can be sorted by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from sqlalchemy import ColumnElement, Select, func, or_, tuple_
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from app.core.paging import Page, PageRequest, chosen_order, decode_cursor, encode_cursor
from app.db.base import Base

Row = TypeVar("Row", bound=Base)
Sorts = Mapping[str, Any]
"""The columns (or expressions) that a list can be sorted by, by their names in the API."""


class Listing(Generic[Row]):
    """A table with a list.

    `sorts` are the keys that it can be sorted by, none of them nullable; `identity` breaks ties. `large`
    are the columns that pages leave out: reading one of them from a page's row raises.
    """

    model: type[Row]
    session: AsyncSession
    sorts: ClassVar[Sorts] = {}
    usual_sort: ClassVar[str] = "-created_at"
    identity: ClassVar[Sequence[str]] = ("id",)
    large: ClassVar[Sequence[Any]] = ()

    async def paged(self, request: PageRequest, statement: Select[Row]) -> Page[Row]:
        """The page of `statement` that is asked for, keyset on sort key and identity."""
        order = chosen_order(request.sort, keys=self.sorts, usual=self.usual_sort)
        keys = [self.sorts[order.key], *(getattr(self.model, name) for name in self.identity)]
        total = await self.count(statement) if request.count else None
        if request.cursor is not None:
            kinds = [key.type.python_type for key in keys]
            place = tuple(decode_cursor(request.cursor, order, request.scope, kinds))
            behind = tuple_(*keys) < place if order.descending else tuple_(*keys) > place
            statement = statement.where(behind)
        listed = (
            statement.options(*(defer(column, raiseload=True) for column in self.large))
            .order_by(*(key.desc() if order.descending else key.asc() for key in keys))
            .limit(request.limit + 1)
            .add_columns(*keys)
        )
        rows = (await self.session.execute(listed)).all()
        shown = rows[: request.limit]
        more = len(rows) > request.limit
        cursor = encode_cursor(order, request.scope, shown[-1][1:]) if more else None
        return Page([row[0] for row in shown], cursor, total)

    async def count(self, statement: Select[Row]) -> int:
        """How many rows `statement` has."""
        counted = statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
        return int((await self.session.execute(counted)).scalar_one())


def contains(text: str, *columns: Any) -> ColumnElement[bool]:
    """Whether one of `columns` has `text` in it, in any case; `%` and `_` stand for themselves."""
    return or_(*(column.icontains(text, autoescape=True) for column in columns))
