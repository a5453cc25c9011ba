"""Which wrong values an error may quote back: never one that could be a credential.

A value is withheld where the request's model has a secret anywhere (a secret may stand in the wrong field),
where a field bears the name of a credential, and where the field is unknown (it may be a misspelt one).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Annotated, Any, get_args, get_origin

from fastapi import Request
from pydantic import BaseModel, SecretBytes, SecretStr

CREDENTIALS = frozenset(
    {
        "api_key",
        "authorization",
        "client_secret",
        "code",
        "cookie",
        "credentials",
        "key",
        "new_password",
        "passphrase",
        "password",
        "private_key",
        "refresh_token",
        "secret",
        "token",
        "value",
    }
)
_LONGEST = 100
_UNKNOWN = "extra_forbidden"
_TOO_SHORT = ("too_short", "string_too_short")


def message(request: Request, found: Any) -> str:
    """What is wrong, with the value where it is short and no secret."""
    if found["type"] in _TOO_SHORT and found["ctx"]["min_length"] == 1:
        return "must not be empty"
    if found["type"] == _UNKNOWN:
        return unknown_field(_body_type(request), found["loc"][1:-1])
    value, text = found.get("input"), str(found["msg"])
    short = isinstance(value, str | int | float | bool) and len(str(value)) <= _LONGEST
    if not short or _may_be_secret(request, found["loc"]):
        return text
    return f"{text}, got {value!r}"


def _may_be_secret(request: Request, place: Sequence[object]) -> bool:
    if any(str(part).lower().replace("-", "_") in CREDENTIALS for part in place):
        return True
    return place[:1] == ("body",) and takes_secrets(_body_type(request))


def _body_type(request: Request) -> Any:
    """The annotation of the route's body; None where it takes none."""
    body = getattr(request.scope.get("route"), "body_field", None)
    return None if body is None else body.field_info.annotation


def unknown_field(annotation: Any, place: Sequence[object]) -> str:
    """What is said of a field that nobody asked for, `place` being where in a body of that type it stands."""
    valid = list(dict.fromkeys(_names(annotation, place)))
    return f"unknown field; valid: {', '.join(map(repr, valid))}" if valid else "unknown field"


def _names(annotation: Any, place: Sequence[object]) -> Iterator[str]:
    """Fields of the models at `place`. Its parts that no model has are indexes and members of unions."""
    models = list(_models(annotation))
    if not place:
        for model in models:
            yield from (field.alias or name for name, field in model.model_fields.items())
        return
    inner = [
        field.annotation
        for model in models
        for name, field in model.model_fields.items()
        if (field.alias or name) == place[0]
    ]
    for part in inner or [annotation]:
        yield from _names(part, place[1:])


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)


@lru_cache(maxsize=1024)
def takes_secrets(annotation: Any) -> bool:
    """Whether a value of this type holds a `SecretStr` or `SecretBytes` at any depth."""
    return any(part in (SecretStr, SecretBytes) for part in _parts(annotation, set()))


def _parts(annotation: Any, seen: set[int]) -> Iterator[Any]:
    if id(annotation) in seen:
        return
    seen.add(id(annotation))
    yield annotation
    arguments = get_args(annotation)
    for argument in arguments[:1] if get_origin(annotation) is Annotated else arguments:
        yield from _parts(argument, seen)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for field in annotation.model_fields.values():
            yield from _parts(field.annotation, seen)
