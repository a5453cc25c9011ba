"""Identifiers: time-ordered UUIDv7 (RFC 9562) for rows, UUIDv5 where the same input must give the same id."""

from __future__ import annotations

from uuid import UUID, uuid5

from uuid_utils.compat import uuid7

__all__ = ["NAMESPACE", "new_id", "stable_id"]

NAMESPACE = UUID("6f727265-7279-5000-8000-000000000000")


def new_id() -> UUID:
    """A fresh UUIDv7; ids made later in this process sort later."""
    return uuid7()


def stable_id(*parts: object) -> UUID:
    """The UUIDv5 of `parts`: equal parts give an equal id on every machine."""
    return uuid5(NAMESPACE, "\x1f".join(str(part) for part in parts))
