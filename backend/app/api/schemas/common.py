"""Shapes that all resources share."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from math import isfinite
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from app.core.constants import SLUG_PATTERN
from app.core.paging import Page

T = TypeVar("T")
Slug = Annotated[str, Field(pattern=SLUG_PATTERN, examples=["handbook"])]
Name = Annotated[str, Field(min_length=1, max_length=200)]


MAX_DEPTH = 100


class Body(BaseModel):
    """A request: unknown fields are refused, and so is what PostgreSQL could not store as JSON."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _storable(cls, value: Any) -> Any:
        found = None if _is_storable(value) else _unstorable(value)
        if found is not None:
            place, message = found
            error = PydanticCustomError("unstorable", "{message}", {"message": message})
            raise ValidationError.from_exception_data(
                cls.__name__, [InitErrorDetails(type=error, loc=place, input=None)]
            )
        return value


def example(**body: Any) -> ConfigDict:
    """`model_config = example(name="…")`: the body that the description of the API shows."""
    return ConfigDict(json_schema_extra={"examples": [body]})


def _is_storable(value: Any) -> bool:
    """Whether no place has a flaw: level by level, quickly, because nearly every body is fine."""
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        deeper: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                deeper += part.keys()
                deeper += part.values()
            elif isinstance(part, list):
                deeper += part
            elif type(part) is not int and _flaw(part) is not None:
                return False
        if not deeper:
            return True
        level = deeper
    return False


def _unstorable(value: Any) -> tuple[tuple[str | int, ...], str] | None:
    """The first place in a JSON value that no row can hold, and why. Python's parser lets all of it in."""
    todo: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while todo:
        place, part = todo.pop()
        message = _flaw(part)
        if message is None and isinstance(part, dict):
            message = next(filter(None, map(_flaw, part)), None)
            todo.extend(((*place, name), item) for name, item in part.items())
        elif message is None and isinstance(part, list):
            todo.extend(((*place, index), item) for index, item in enumerate(part))
        if message is None and len(place) > MAX_DEPTH:
            message = f"nested deeper than {MAX_DEPTH} levels"
        if message is not None:
            return place, message
    return None


def _flaw(part: Any) -> str | None:
    if isinstance(part, str):
        if "\x00" in part:
            return "contains the character U+0000, which cannot be stored"
        if not part.isascii() and any("\ud800" <= character <= "\udfff" for character in part):
            return "contains half of a surrogate pair, which is no text"
    elif isinstance(part, float) and not isfinite(part):
        return "is not a finite number"
    return None


def _in_utc(moment: datetime) -> datetime:
    try:
        return moment.astimezone(UTC)
    except OverflowError as error:
        raise PydanticCustomError("out_of_range", "must lie in the years 1 to 9999 of UTC") from error


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with its offset, as UTC."""


class Read(BaseModel):
    """An answer, read from a row or a dataclass."""

    model_config = ConfigDict(from_attributes=True)


class PageRead(Read, Generic[T]):
    """One page. `next_cursor` is null on the last one; `total` counts all pages, if `count` asked for it."""

    items: list[T]
    next_cursor: str | None = None
    total: Annotated[int | None, Field(exclude_if=lambda total: total is None)] = None


def page_of(page: Page[Any], read: Callable[[Any], T]) -> PageRead[T]:
    """The page on the wire, each of its items made by `read`."""
    return PageRead(items=[read(row) for row in page.items], next_cursor=page.next_cursor, total=page.total)


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


Description = Annotated[str, Field(max_length=2000)]
Metadata = Annotated[dict[str, Any], Field(default_factory=dict, examples=[{"year": 2026}])]
