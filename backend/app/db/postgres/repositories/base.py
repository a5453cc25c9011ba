"""What every repository shares: the tenant comes first, so it cannot be forgotten."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar
from uuid import UUID

from asyncpg import ForeignKeyViolationError, UniqueViolationError
from sqlalchemy import Select, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import Conflict, NotFound, PreconditionFailed
from app.core.paging import Page, PageRequest
from app.core.slugs import as_uuid
from app.db.postgres.repositories.listing import Listing, Row
from app.db.session import Tenant


class Repository(Listing[Row]):
    """The only door to one table. Rows of other tenants and projects do not exist here."""

    noun: ClassVar[str]
    by_project: ClassVar[bool] = True

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

    async def slugs(self, ids: Iterable[UUID]) -> dict[UUID, str]:
        """The slugs of those of the rows that are there, by id."""
        model: Any = self.model
        statement = self.visible().where(model.id.in_(ids)).with_only_columns(model.id, model.slug)
        return {row.id: row.slug for row in await self.session.execute(statement)}

    async def page(self, request: PageRequest, statement: Select[Row] | None = None) -> Page[Row]:
        """A page of `statement`, or of all that is visible."""
        return await self.paged(request, self.visible() if statement is None else statement)

    def demand_revision(self, row: Any, wanted: Collection[int] | None) -> None:
        """`PreconditionFailed` unless the row is at one of the `wanted` revisions (None: at any)."""
        if wanted is None or row.revision in wanted:
            return
        known = " or ".join(map(str, sorted(wanted))) or "the one that If-Match names"
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
