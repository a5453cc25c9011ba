"""Shapes that all resources share."""

from __future__ import annotations

from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.core.constants import SLUG_PATTERN

T = TypeVar("T")
Slug = Annotated[str, Field(pattern=SLUG_PATTERN, examples=["handbook"])]
Name = Annotated[str, Field(min_length=1, max_length=200)]


class Body(BaseModel):
    """A request: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Read(BaseModel):
    """An answer, read from a row or a dataclass."""

    model_config = ConfigDict(from_attributes=True)


class PageRead(Read, Generic[T]):
    """One page. `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None = None


class FieldErrorRead(Read):
    pointer: str
    code: str
    message: str


class Problem(Read):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    instance: str
    request_id: str | None
    errors: list[FieldErrorRead]


class ItemError(Read):
    """Why one thing failed. `retriable` says whether trying again may help."""

    model_config = ConfigDict(from_attributes=True, extra="allow")

    code: str
    message: str


Metadata = Annotated[dict[str, Any], Field(default_factory=dict, examples=[{"year": 2026}])]
