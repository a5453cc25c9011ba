"""Where in a request, as it was sent, a validation error lies."""

from __future__ import annotations

from json import JSONDecodeError
from typing import Any

from app.core.errors import AppError, BadRequest, FieldError


def pointer(*parts: object) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


def place(found: Any, body: Any) -> list[object]:
    """The parts of a pointer into the request, for one of pydantic's errors.

    Pydantic's own places also name the members of unions that were tried; the body has no such names.
    """
    source, *parts = found["loc"]
    if source != "body":
        return [source, *parts]
    kept: list[object] = [source]
    for number, part in enumerate(parts, start=1):
        if _has(body, part):
            body = body[part]
        elif found["type"] != "missing" or number < len(parts):
            continue
        kept.append(part)
    return kept


def _has(value: Any, part: object) -> bool:
    if isinstance(value, dict):
        return part in value
    return isinstance(value, list) and isinstance(part, int) and part < len(value)


def malformed(cause: BaseException | None) -> AppError | None:
    """Why a body could not be read; None for whatever else went wrong."""
    match cause:
        case AppError():
            return cause
        case JSONDecodeError():
            what = cause.msg.removesuffix(" at").removesuffix(": ")
            why = f"{what} at line {cause.lineno}, column {cause.colno}"
        case UnicodeDecodeError():
            why = f"it is not UTF-8 at byte {cause.start}"
        case RecursionError():
            why = "it is nested too deep"
        case ValueError():
            why = "a number in it has too many digits"
        case _:
            return None
    return malformed_json(f"The body is not JSON: {why}.", "/body")


def malformed_json(detail: str, where: str) -> BadRequest:
    error = FieldError(where, "malformed_json", detail)
    return BadRequest(detail, code="malformed_json", errors=[error])
