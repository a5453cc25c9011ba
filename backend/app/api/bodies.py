"""What a request's body may be before its fields are looked at: the right kind, and unambiguous JSON."""

from __future__ import annotations

import json
from typing import Any, Final

from fastapi import Request
from fastapi.params import Form
from fastapi.routing import APIRoute
from python_multipart.multipart import parse_options_header

from app.api.validation import malformed_json, pointer
from app.core.config import Settings
from app.core.errors import FieldError, Invalid, TooLarge, UnsupportedMediaType

_JSON: Final = "application/json"
_FORM: Final = "multipart/form-data"
_UTF8: Final = (b"", b"utf-8", b"utf8")
_SAYS_NOTHING: Final = (b"", b"{}", b"null")


async def check_body(request: Request) -> None:
    """415 for another kind or charset, 422 for one that nobody asked for, 400 for a name given twice."""
    if not _sends_one(request):
        return
    taken = media_types(request.scope["route"])
    if not taken:
        if (await request.body()).strip() not in _SAYS_NOTHING:
            error = FieldError("/body", "unexpected_body", "this route takes no body")
            raise Invalid("This route takes no body.", code="unexpected_body", errors=[error])
        return
    sent = _media_type(request.headers.get("content-type", ""))
    if sent not in taken and not (_JSON in taken and _is_json(sent)):
        raise UnsupportedMediaType(
            f"The Content-Type is {sent!r}; this route takes {' or '.join(map(repr, taken))}."
            if sent
            else f"There is no Content-Type; this route takes {' or '.join(map(repr, taken))}."
        )
    if _is_json(sent):
        check_charset(request)
        check_names(await request.body())


def too_large(request: Request) -> TooLarge:
    """What is answered to a request beyond the limit of its route."""
    settings: Settings = request.app.state.settings
    route = request.scope.get("route")
    name = "max_request_bytes"
    if isinstance(route, APIRoute) and _FORM in media_types(route):
        name = "max_upload_request_bytes"
    return TooLarge(
        f"The request is larger than this route takes: at most {getattr(settings, name)} bytes "
        f"(ORRERY_{name.upper()})."
    )


def media_types(route: APIRoute) -> list[str]:
    """The kinds of body that a route takes; none where it takes no body."""
    extra = (route.openapi_extra or {}).get("requestBody", {}).get("content")
    if extra:
        return list(extra)
    if route.body_field is None:
        return []
    info = route.body_field.field_info
    return [info.media_type] if isinstance(info, Form) else [_JSON, *getattr(route, "notations", ())]


def check_names(body: bytes) -> None:
    """RFC 7493 (I-JSON): in one object, no name twice. Parsers disagree on which of them counts."""
    doubled: list[tuple[dict[str, Any], str]] = []

    def read(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            doubled.append((made, next(name for name in names if names.count(name) > 1)))
        return made

    try:
        value = json.loads(body, object_pairs_hook=read)
    except (ValueError, RecursionError):
        return  # told by whoever reads it
    if doubled:
        inner, name = doubled[-1]  # nothing around it is doubled, so it is still there
        where = pointer("body", *_way_to(inner, value), name)
        raise malformed_json(f"The body has the name {name!r} twice in one object, at {where}.", where)


def _way_to(wanted: object, value: Any) -> list[object]:
    todo: list[tuple[list[object], Any]] = [([], value)]
    while todo:
        way, part = todo.pop()
        if part is wanted:
            return way
        if isinstance(part, dict):
            todo.extend(([*way, name], inner) for name, inner in part.items())
        elif isinstance(part, list):
            todo.extend(([*way, index], inner) for index, inner in enumerate(part))
    return []


def check_charset(request: Request) -> None:
    """415 for JSON that says it is not UTF-8, which RFC 8259 asks for."""
    _, options = parse_options_header(request.headers.get("content-type", ""))
    charset = options.get(b"charset", b"").lower()
    if charset not in _UTF8:
        raise UnsupportedMediaType(
            f"The Content-Type says charset {charset.decode('latin-1')!r}; JSON is taken in 'utf-8' only."
        )


def _sends_one(request: Request) -> bool:
    headers = request.headers
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers


def _media_type(header: str) -> str:
    return header.partition(";")[0].strip().lower()


def _is_json(kind: str) -> bool:
    return kind == _JSON or (kind.startswith("application/") and kind.endswith("+json"))
