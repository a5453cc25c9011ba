"""Keyset pages: a page goes on behind the last row of the page before, whatever came or went meanwhile.

A cursor holds that row's place in the order. It is bound to the sort and to the filters that it came
from, and it is no secret and no authority: whoever makes one up sees what they may see anyway.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Generic, TypeVar
from uuid import UUID

from app.core.constants import DEFAULT_PAGE_SIZE
from app.core.errors import FieldError, Invalid

T = TypeVar("T")
U = TypeVar("U")
Value = datetime | int | str | UUID

_SHOWN = 80
_MAX_INT = 2**31


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`sort` is a key, `-` before it for descending; None is the list's usual order.

    `cursor` is `next_cursor` of the page before. `count` asks for the total of all pages. `scope` names the
    list and its filters: a cursor is refused in another one.
    """

    limit: int = DEFAULT_PAGE_SIZE
    cursor: str | None = None
    sort: str | None = None
    count: bool = False
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """`next_cursor` is None on the last page, `total` unless it was asked for."""

    items: list[T]
    next_cursor: str | None = None
    total: int | None = None

    def map(self, read: Callable[[T], U]) -> Page[U]:
        return Page([read(item) for item in self.items], self.next_cursor, self.total)


@dataclass(frozen=True, slots=True)
class Order:
    """By `key`, then by what identifies a row, both in the same direction."""

    key: str
    descending: bool = False

    def __str__(self) -> str:
        return f"-{self.key}" if self.descending else self.key


def chosen_order(sort: str | None, *, keys: Collection[str], usual: str) -> Order:
    """The order that `sort` asks for; `Invalid` naming the valid ones."""
    wanted = usual if sort is None else sort
    order = Order(wanted.removeprefix("-"), wanted.startswith("-"))
    if order.key not in keys:
        valid = ", ".join(f"{key!r}, {'-' + key!r}" for key in keys)
        raise _invalid("sort", "unknown_sort", f"{_short(wanted)} is no sort of this list; valid: {valid}")
    return order


def encode_cursor(order: Order, scope: str, place: Sequence[Value]) -> str:
    """The cursor behind the row at `place`: the values of its sort key and of what identifies it."""
    values = [value if isinstance(value, int) else _text(value) for value in place]
    body = json.dumps([str(order), _digest(scope), *values], separators=(",", ":"))
    return urlsafe_b64encode(body.encode()).rstrip(b"=").decode()


def decode_cursor(cursor: str, order: Order, scope: str, kinds: Sequence[type]) -> list[Value]:
    """The place that `cursor` holds, as values of `kinds`; `Invalid` where it does not belong here."""
    try:
        sort, digest, *place = json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if not (isinstance(sort, str) and isinstance(digest, str)):
            raise ValueError("a cursor begins with two texts")
        if (sort, digest) == (str(order), _digest(scope)):
            return [_value(kind, raw) for kind, raw in zip(kinds, place, strict=True)]
    except (ValueError, TypeError, OverflowError, RecursionError, BadBase64) as error:
        message = f"{_short(cursor)} is not a cursor: send `next_cursor` of the page before, or leave it out"
        raise _invalid("cursor", "invalid_cursor", message) from error
    if sort != str(order):
        message = f"the cursor is of a list sorted by {_short(sort)}, not by {str(order)!r}: keep to one sort"
    else:
        message = "the cursor is of another list or of other filters: keep to those of the first page"
    raise _invalid("cursor", "cursor_mismatch", message)


def _text(value: datetime | str | UUID) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _value(kind: type, raw: Any) -> Value:
    """`raw` as a value of `kind` that PostgreSQL takes; `ValueError` or `TypeError` otherwise."""
    if kind is int:
        if type(raw) is not int or not -_MAX_INT <= raw < _MAX_INT:
            raise ValueError(f"{raw!r} is no integer of a column")
        return raw
    if not isinstance(raw, str):
        raise TypeError(f"{raw!r} is no text")
    if kind is UUID:
        return UUID(raw)
    if kind is datetime:
        moment = datetime.fromisoformat(raw)
        if moment.utcoffset() != timedelta(0):
            raise ValueError(f"{raw!r} is not in UTC")
        return moment
    raw.encode()  # half a surrogate pair is a `ValueError`
    if "\x00" in raw:
        raise ValueError("U+0000 is in no stored text")
    return raw


def _digest(scope: str) -> str:
    return sha256(scope.encode()).hexdigest()[:16]


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")


def _invalid(parameter: str, code: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"/query/{parameter}", code, message)])
