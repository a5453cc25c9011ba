"""How one JSON value becomes another: edits at pointers (RFC 6901), made and applied one after the other.

Values are equal where their canonical JSON (RFC 8785) is: `1` and `1.0` are, `1` and `true` are not.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from app.agent.core.base import Closed
from app.agent.graph.issues import Path, pointer
from app.core.errors import Conflict, FieldError


class Added(Closed):
    """A key of an object that was not there, or an item that is put before what stands at its index."""

    op: Literal["add"] = "add"
    pointer: str
    value: JsonValue


class Removed(Closed):
    op: Literal["remove"] = "remove"
    pointer: str
    value: JsonValue


class Replaced(Closed):
    op: Literal["replace"] = "replace"
    pointer: str
    before: JsonValue
    after: JsonValue


Edit = Annotated[Added | Removed | Replaced, Field(discriminator="op")]


class DoesNotFit(Conflict):
    """A diff was made from another document than the one that it is applied to."""

    code = "diff_does_not_fit"

    def __init__(self, where: str, problem: str) -> None:
        message = f"The diff does not fit the document at {where or 'its root'}: {problem}."
        super().__init__(message, errors=[FieldError(where, self.code, message)])


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values have the same canonical JSON."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(item, other[key]) for key, item in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return bool(one == other)


def edits_between(before: Any, after: Any, path: Path = ()) -> Iterator[Edit]:
    """What makes `after` of `before`, in an order in which it can be done."""
    if isinstance(before, dict) and isinstance(after, dict):
        yield from _of_objects(before, after, path)
    elif isinstance(before, list) and isinstance(after, list):
        yield from _of_lists(before, after, path)
    elif not same(before, after):
        yield Replaced(pointer=pointer(path), before=before, after=after)


def _of_objects(before: dict[str, Any], after: dict[str, Any], path: Path) -> Iterator[Edit]:
    for key, value in before.items():
        if key not in after:
            yield Removed(pointer=pointer((*path, key)), value=value)
        else:
            yield from edits_between(value, after[key], (*path, key))
    for key, value in after.items():
        if key not in before:
            yield Added(pointer=pointer((*path, key)), value=value)


def _of_lists(before: list[Any], after: list[Any], path: Path) -> Iterator[Edit]:
    """Items are told apart by their places, but for those that are the same at both ends."""
    shorter = min(len(before), len(after))
    start = next((i for i in range(shorter) if not same(before[i], after[i])), shorter)
    left = shorter - start
    end = next((i for i in range(left) if not same(before[-1 - i], after[-1 - i])), left)
    middle = shorter - end
    for index in range(start, middle):
        yield from edits_between(before[index], after[index], (*path, index))
    for index in reversed(range(middle, len(before) - end)):
        yield Removed(pointer=pointer((*path, index)), value=before[index])
    for index in range(middle, len(after) - end):
        yield Added(pointer=pointer((*path, index)), value=after[index])


def edited(value: Any, edits: Iterable[Edit], *, within: str = "") -> Any:
    """A copy of `value` with the edits made. Raises `DoesNotFit`, where `within` begins the pointer."""
    box = {"": copy.deepcopy(value)}
    for edit in edits:
        *way, last = ["", *(_unescaped(token) for token in edit.pointer.split("/")[1:])]
        inside: Any = box
        for token in way:
            inside = _child(inside, token, within + edit.pointer)
        _make(edit, inside, last, within + edit.pointer)
    return box[""]


def _make(edit: Edit, inside: Any, token: str, where: str) -> None:
    if isinstance(edit, Added):
        _add(inside, token, copy.deepcopy(edit.value), where)
        return
    expected = edit.value if isinstance(edit, Removed) else edit.before
    if not same(_child(inside, token, where), expected):
        raise DoesNotFit(where, "it has another value there than the diff was made from")
    key = int(token) if isinstance(inside, list) else token
    if isinstance(edit, Removed):
        del inside[key]
    else:
        inside[key] = copy.deepcopy(edit.after)


def _add(inside: Any, token: str, value: Any, where: str) -> None:
    if isinstance(inside, dict) and token not in inside:
        inside[token] = value
    elif isinstance(inside, list) and _is_index(token) and int(token) <= len(inside):
        inside.insert(int(token), value)
    else:
        raise DoesNotFit(where, "nothing can be added there, or it is there already")


def _child(inside: Any, token: str, where: str) -> Any:
    if isinstance(inside, dict) and token in inside:
        return inside[token]
    if isinstance(inside, list) and _is_index(token) and int(token) < len(inside):
        return inside[int(token)]
    raise DoesNotFit(where, "there is no such place")


def _is_index(token: str) -> bool:
    return token.isascii() and token.isdecimal() and len(token) <= 9


def _unescaped(token: str) -> str:
    return token.replace("~1", "/").replace("~0", "~")
