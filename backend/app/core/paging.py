"""Keyset pages: newest first by UUIDv7, with an opaque cursor."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

from app.core.constants import DEFAULT_PAGE_SIZE
from app.core.errors import FieldError, Invalid

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PageRequest:
    """`after` is the last id of the page before, or None for the first page."""

    limit: int = DEFAULT_PAGE_SIZE
    after: UUID | None = None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    items: list[T]
    next_cursor: str | None = None


def encode_cursor(last: UUID) -> str:
    return urlsafe_b64encode(last.bytes).rstrip(b"=").decode()


def decode_cursor(cursor: str) -> UUID:
    """The id inside `cursor`; `Invalid` where it is none of ours."""
    try:
        return UUID(bytes=urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValueError, BadBase64) as error:
        message = f"{cursor!r} is not a cursor: send `next_cursor` of the page before, or leave it out"
        raise Invalid(message, errors=[FieldError("/query/cursor", "invalid_cursor", message)]) from error
