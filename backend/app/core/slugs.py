"""Slugs: the readable names that stand beside ids in paths and bindings."""

from __future__ import annotations

import re
import unicodedata
from uuid import UUID

from app.core.constants import SLUG_PATTERN
from app.core.errors import FieldError, Invalid

_SLUG = re.compile(SLUG_PATTERN)


def slugify(name: str) -> str:
    """The slug that `name` suggests: `Team Handbook` → `team-handbook`; `Invalid` where no letter is left."""
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).lstrip("-0123456789")[:63].rstrip("-")
    if len(slug) < 2:
        raise _invalid(
            f"no slug can be made of the name {name!r}, because a slug has at least 2 letters of a to z, "
            "digits or hyphens, a letter first: give a `slug`",
            "/body/slug",
        )
    return check_slug(slug)


def check_slug(slug: str, *, pointer: str = "/body/slug") -> str:
    """`slug` itself, if it is one; `Invalid` otherwise (UUIDs are refused: they would be taken for ids)."""
    if not is_slug(slug) or as_uuid(slug):
        raise _invalid(f"{slug!r} is not a slug: {SLUG_PATTERN}, and not a UUID", pointer)
    return slug


def is_slug(name: str) -> bool:
    return _SLUG.fullmatch(name) is not None


def as_uuid(reference: str) -> UUID | None:
    try:
        return UUID(reference)
    except ValueError:
        return None


def _invalid(message: str, pointer: str) -> Invalid:
    return Invalid(message, errors=[FieldError(pointer, "invalid_slug", message)])
