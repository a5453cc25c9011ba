"""What every repository shares: the tenant comes first, so it cannot be forgotten."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar, Generic, TypeVar
from uuid import UUID

from asyncpg import ForeignKeyViolationError, UniqueViolationError
from sqlalchemy import ColumnElement, Select, func, or_, select, tuple_
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from app.core.errors import Conflict, NotFound, PreconditionFailed
from app.core.paging import Page, PageRequest, chosen_order, decode_cursor, encode_cursor
from app.core.slugs import as_uuid
from app.db.base import Base
from app.db.session import Tenant

Row = TypeVar("Row", bound=Base)
Sorts = Mapping[str, Any]
"""The columns (or expressions) that a list can be sorted by, by their names in the API."""


class Repository(Generic[Row]):
    """The only door to one table. Rows of other tenants and projects do not exist here.

    `sorts` are the keys that its list can be sorted by, none of them nullable; `identity` breaks ties.
    `large` are the columns that pages leave out: reading one of them from a page's row raises.
    """

    model: type[Row]
    noun: ClassVar[str]
    by_project: ClassVar[bool] = True
    sorts: ClassVar[Sorts] = {}
    usual_sort: ClassVar[str] = "-created_at"
    identity: ClassVar[Sequence[str]] = ("id",)
    large: ClassVar[Sequence[Any]] = ()

    def __init__(self, session: AsyncSession, tenant: Tenant) -> None:
        self.session = session
        self.tenant = tenant

    def visible(self) -> Select[Row]:
        """Rows of the organization, and of one project where `by_project`."""
        model: Any = self.model
        statement: Select[Row] = select(self.model).where(model.org_id == self.tenant.org_id)
        if self.by_project:
            statement = statement.where(model.project_id == self.tenant.project)
        return statement

    async def one_or_none(self, statement: Select[Row]) -> Row | None:
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def many(self, statement: Select[Row]) -> list[Row]:
        return list((await self.session.execute(statement)).scalars())

    async def get(self, row_id: UUID, *, lock: bool = False) -> Row:
        """The row, or `NotFound`: a foreign id answers exactly like a missing one."""
        model: Any = self.model
        statement = self.visible().where(model.id == row_id)
        row = await self.one_or_none(statement.with_for_update(key_share=True) if lock else statement)
        if row is None:
            raise self.missing(row_id)
        return row

    async def find(self, reference: str, *, lock: bool = False) -> Row:
        """The row that `reference`, an id or a slug, names; `NotFound` otherwise."""
        model: Any = self.model
        row_id = as_uuid(reference)
        if row_id is not None:
            return await self.get(row_id, lock=lock)
        statement = self.visible().where(model.slug == reference)
        row = await self.one_or_none(statement.with_for_update(key_share=True) if lock else statement)
        if row is None:
            raise self.missing(reference)
        return row

    async def page(self, request: PageRequest, statement: Select[Row] | None = None) -> Page[Row]:
        """A page of `statement` (all that is visible, where it is None), keyset on sort key and identity."""
        statement = self.visible() if statement is None else statement
        order = chosen_order(request.sort, keys=self.sorts, usual=self.usual_sort)
        keys = [self.sorts[order.key], *(getattr(self.model, name) for name in self.identity)]
        total = await self._count(statement) if request.count else None
        if request.cursor is not None:
            kinds = [key.type.python_type for key in keys]
            place = tuple(decode_cursor(request.cursor, order, request.scope, kinds))
            behind = tuple_(*keys) < place if order.descending else tuple_(*keys) > place
            statement = statement.where(behind)
        statement = (
            statement.options(*(defer(column, raiseload=True) for column in self.large))
            .order_by(*(key.desc() if order.descending else key.asc() for key in keys))
            .limit(request.limit + 1)
            .add_columns(*keys)
        )
        rows = (await self.session.execute(statement)).all()
        shown = rows[: request.limit]
        more = len(rows) > request.limit
        cursor = encode_cursor(order, request.scope, shown[-1][1:]) if more else None
        return Page([row[0] for row in shown], cursor, total)

    async def _count(self, statement: Select[Row]) -> int:
        counted = statement.with_only_columns(func.count(), maintain_column_froms=True).order_by(None)
        return int((await self.session.execute(counted)).scalar_one())

    def demand_revision(self, row: Any, wanted: Collection[int] | None) -> None:
        """`PreconditionFailed` unless the row is at one of the `wanted` revisions (None: at any)."""
        if wanted is None or row.revision in wanted:
            return
        known = " or ".join(map(str, sorted(wanted)))
        raise PreconditionFailed(
            f"The {self.noun} is at revision {row.revision}, not {known}: read it again, then decide."
        )

    async def add(self, row: Row, *, duplicate: str = "") -> Row:
        """Inserts `row`; a broken unique constraint is `Conflict` with the message `duplicate`.

        So is a broken foreign key: what the row belongs to was deleted a moment ago.
        """
        try:
            async with self.session.begin_nested():
                self.session.add(row)
        except IntegrityError as error:
            cause = error.orig.__cause__ if error.orig else None
            if isinstance(cause, UniqueViolationError):
                raise Conflict(duplicate or f"This {self.noun} exists already.", code="duplicate") from error
            if isinstance(cause, ForeignKeyViolationError):
                raise Conflict(f"What this {self.noun} belongs to is gone.", code="deleted") from error
            raise
        return row

    async def add_all(self, rows: Sequence[Row]) -> None:
        """Inserts rows of which none can be a duplicate, in few statements."""
        self.session.add_all(rows)
        await self.session.flush()

    def missing(self, reference: object) -> NotFound:
        return NotFound(f"There is no {self.noun} {str(reference)!r} here.")


def contains(text: str, *columns: Any) -> ColumnElement[bool]:
    """Whether one of `columns` has `text` in it, in any case; `%` and `_` stand for themselves."""
    return or_(*(column.icontains(text, autoescape=True) for column in columns))
