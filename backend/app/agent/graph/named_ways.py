"""Handles that a document names itself, besides `else`, where none of them is taken."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from app.agent.core.base import ERROR, SUCCESS, Mistake
from app.agent.graph.policies import Name

ELSE = "else"
_RESERVED = (ELSE, SUCCESS, ERROR)


def _not_reserved(handle: str) -> str:
    if handle in _RESERVED:
        raise PydanticCustomError(
            "reserved_handle",
            "{handle} is reserved; the node has the handle 'else' anyway, taken where no other is",
            {"handle": repr(handle)},
        )
    return handle


Handle = Annotated[Name, AfterValidator(_not_reserved)]


def repeated(field: str, raw: object, *, noun: str, fix: str) -> Iterator[Mistake]:
    """A mistake for each entry of the list `raw` whose handle another has already."""
    taken: dict[str, int] = {}
    for index, entry in enumerate(raw if isinstance(raw, list) else ()):
        handle: Any = entry.get("handle") if isinstance(entry, dict) else None
        if isinstance(handle, str) and taken.setdefault(handle, index) != index:
            yield Mistake(
                (field, index, "handle"),
                f"the handle {handle!r} is that of {noun} {taken[handle]} already",
                fix,
            )
