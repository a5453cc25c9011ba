"""What URLs of our own API may hold, told before anything else is looked at."""

from __future__ import annotations

from collections import Counter
from typing import Any, get_args, get_origin
from urllib.parse import unquote_to_bytes

from fastapi import Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute

from app.api.validation import pointer
from app.core.errors import BadRequest, FieldError, Invalid


def check_url(request: Request) -> None:
    """Raises `BadRequest` where it is not UTF-8, `Invalid` for what cannot be stored or is not taken."""
    _check_path(request)
    _check_query(request)


def _check_path(request: Request) -> None:
    path = request.scope["path"]
    if "\ufffd" in path and not _is_utf8(request.scope.get("raw_path", b"")):
        raise _not_utf8("/path")
    if "\x00" in path:
        found = [name for name, value in request.path_params.items() if "\x00" in value]
        errors = [FieldError(pointer("path", *found[:1]), "unstorable", "contains U+0000")]
        raise Invalid("The path contains the character U+0000.", errors=errors)


def _check_query(request: Request) -> None:
    """422 for query parameters that the route does not declare, or takes once but got twice.

    A misspelt filter must not be ignored.

    U+0000 is refused too: no stored text has it, and PostgreSQL takes none for comparison.
    """
    if not request.scope["query_string"]:
        return
    if not _is_utf8(request.scope["query_string"]):
        raise _not_utf8("/query")
    route: APIRoute = request.scope["route"]
    taken = {p.alias: p.field_info for p in get_flat_params(route.dependant) if _in_query(p.field_info)}
    valid, given = list(taken), Counter(name for name, _ in request.query_params.multi_items())
    known = f"valid: {', '.join(map(repr, valid))}" if valid else "this route takes none"
    errors = []
    for name, value in request.query_params.multi_items():
        if name not in valid:
            message = f"unknown query parameter {name!r}; {known}"
            errors.append(FieldError(pointer("query", name), "extra_forbidden", message))
        elif "\x00" in value:
            errors.append(FieldError(pointer("query", name), "unstorable", f"{name!r} contains U+0000"))
        elif given.pop(name, 1) > 1 and not _takes_several(taken[name].annotation):
            errors.append(FieldError(pointer("query", name), "repeated", f"{name!r} is taken once only"))
    if errors:
        raise Invalid("; ".join(error.message for error in errors[:5]), errors=errors)


def _is_utf8(quoted: bytes) -> bool:
    try:
        unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(where: str) -> BadRequest:
    message = "The URL is not UTF-8 where it is percent-encoded."
    return BadRequest(
        message, code="invalid_encoding", errors=[FieldError(where, "invalid_encoding", message)]
    )


def _takes_several(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_takes_several, get_args(annotation)))


def _in_query(info: object) -> bool:
    return getattr(info, "in_", None) is ParamTypes.query
