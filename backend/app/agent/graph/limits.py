"""How large a document may be, measured before anything recursive looks at it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from app.agent.graph.issues import Findings, IssueCode, Path, quoted

MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_TEXT = 2 * 2**20
MAX_NODES = 2_000
MAX_ENDS = 100
MAX_EDGES = 10_000
MAX_FAN_OUT = 256
_LARGEST_INTEGER = 2**53 - 1


def check_size(document: Any, findings: Findings) -> bool:
    """Reports values that JSON cannot carry, and documents beyond the limits. True if all is well."""
    fine = True
    text = 0
    for values, (path, value) in enumerate(_values(document), start=1):
        text += len(value) if isinstance(value, str) else 0
        if values > MAX_VALUES or text > MAX_TEXT:
            _report_size(findings)
            return False
        if len(path) > MAX_DEPTH:
            message = f"values are nested deeper than {MAX_DEPTH} levels"
            findings.add(IssueCode.TOO_DEEP, path, message, fix="flatten the document")
            return False
        if problem := _not_json(value):
            findings.add(IssueCode.NOT_JSON, path, problem, fix="use a value that JSON can carry")
            fine = False
    return fine


def exceeds(value: Any, *, max_text: int, max_values: int = MAX_VALUES) -> bool:
    """Whether a value made by a run is too large; looks no further than the limits."""
    text = 0
    for count, (path, part) in enumerate(_values(value), start=1):
        text += len(part) if isinstance(part, str) else 0
        if count > max_values or text > max_text or len(path) > MAX_DEPTH:
            return True
    return False


def too_much(max_text: int, max_values: int = MAX_VALUES) -> str:
    """What `exceeds` says no to, in words."""
    return f"{max_text} characters, {max_values} values or {MAX_DEPTH} levels"


def _report_size(findings: Findings) -> None:
    message = f"the document exceeds {MAX_VALUES} values or {MAX_TEXT} characters of text"
    fix = "move long texts into a collection, or split the agent"
    findings.add(IssueCode.TOO_LARGE, (), message, fix=fix)


def _values(document: Any) -> Iterator[tuple[Path, Any]]:
    """Every key and value of a document, lazily and without recursion."""
    todo: list[tuple[Path, Any]] = [((), document)]
    while todo:
        path, value = todo.pop()
        yield path, value
        if len(path) > MAX_DEPTH:
            continue
        if isinstance(value, dict):
            for key, item in value.items():
                yield path, key if isinstance(key, str) else _Key(key)
                todo.append(((*path, key if isinstance(key, str) else str(key)), item))
        elif isinstance(value, list):
            todo.extend(((*path, index), item) for index, item in enumerate(value))


class _Key:
    """A key that is not a string."""

    def __init__(self, key: object) -> None:
        self.key = key


def _not_json(value: Any) -> str:
    """What is wrong with one value; empty if nothing is."""
    match value:
        case _Key():
            return f"the key {quoted(value.key)} is not a string"
        case None | bool() | dict() | list():
            return ""
        case str():
            return "" if _encodes(value) else f"{quoted(value)} holds half a surrogate pair"
        case int():
            return "" if abs(value) <= _LARGEST_INTEGER else "an integer beyond 2^53 - 1 loses digits in JSON"
        case float():
            return "" if math.isfinite(value) else f"{value} is not a JSON number"
    return f"{quoted(value)} is not a JSON value"


def _encodes(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
