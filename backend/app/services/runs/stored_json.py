"""JSON as PostgreSQL takes it: whatever a model or a node says, one value must not stop a whole batch."""

from __future__ import annotations

import json
import math
import re
from functools import lru_cache
from typing import Any

import orjson
from pydantic import BaseModel

_SUSPECT = re.compile(r"\\u0000|\\ud[89a-f]|NaN|Infinity")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_NUL = "\\u0000"


def stored_json(value: Any) -> str | None:
    """`value` as JSON text: NUL and half surrogate pairs become U+FFFD, NaN and infinities null.

    None stays None, the null of SQL.
    """
    if value is None:
        return None
    try:
        text = orjson.dumps(value).decode()
    except TypeError:  # half a surrogate pair, a huge integer, keys that are no strings
        text = json.dumps(value)
        return json.dumps(_storable(value)) if _SUSPECT.search(text) else text
    return json.dumps(_storable(value)) if _NUL in text else text


def event_json(event: BaseModel) -> str:
    """An AG-UI event as such text, absent fields left out.

    As `event.model_dump_json` gives it, without a Python function of its base class for every event.
    """
    aliases = _aliases(type(event))
    body = {aliases.get(name, name): value for name, value in event if value is not None}
    try:
        text = orjson.dumps(body, default=_dumped).decode()
    except TypeError:  # as in `stored_json`
        text = _NUL
    return text if _NUL not in text else stored_json(_dumped(event)) or ""


@lru_cache
def _aliases(model: type[BaseModel]) -> dict[str, str]:
    return {name: field.serialization_alias or name for name, field in model.model_fields.items()}


def _dumped(model: BaseModel) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def storable(value: Any) -> Any:
    """`value` as it will be read again, NaN and infinities apart; itself where nothing is to be changed."""
    try:
        return _storable(value) if _NUL in orjson.dumps(value).decode() else value
    except TypeError:
        return _storable(value)


def _storable(value: Any) -> Any:
    match value:
        case str():
            return _UNSTORABLE.sub("\ufffd", value)
        case float() if not math.isfinite(value):
            return None
        case dict():
            return {_storable(name): _storable(item) for name, item in value.items()}
        case list() | tuple():
            return [_storable(item) for item in value]
    return value
