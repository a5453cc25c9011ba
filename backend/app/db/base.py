"""Declarative base of every table, and the column shapes that all tenant tables share."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import Enum, ForeignKeyConstraint, MetaData, Text, func
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.ids import new_id

Json = dict[str, Any]
UpdatedAt = Annotated[
    datetime, mapped_column(TIMESTAMP(timezone=True), server_default=func.now(), onupdate=func.now())
]
Revision = Annotated[int, mapped_column(default=1, server_default="1")]
CreatedAt = Annotated[datetime, mapped_column(TIMESTAMP(timezone=True), server_default=func.now())]


def _values(enum: type[StrEnum]) -> list[str]:
    return [member.value for member in enum]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012
        str: Text,
        Json: JSONB,
        list[Any]: JSONB,
        list[str]: JSONB,
        datetime: TIMESTAMP(timezone=True),
        StrEnum: Enum(StrEnum, native_enum=False, values_callable=_values, length=32),
    }


class TenantRow(Base):
    """A row of one organization: primary key `(org_id, id)`, walled by row-level security."""

    __abstract__ = True

    org_id: Mapped[UUID] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    created_at: Mapped[CreatedAt]


class ProjectRow(TenantRow):
    """A tenant row that lives in one project; subclasses add `tenant_key("project_id", "projects")`."""

    __abstract__ = True

    project_id: Mapped[UUID]


def tenant_key(column: str, table: str, *, ondelete: str = "CASCADE") -> ForeignKeyConstraint:
    """The foreign key `(org_id, column)` → `table (org_id, id)`: it cannot cross organizations."""
    return ForeignKeyConstraint(["org_id", column], [f"{table}.org_id", f"{table}.id"], ondelete=ondelete)
