"""The state of one run as it is checkpointed, and how parallel updates of it combine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from typing_extensions import TypedDict


class Reducer(StrEnum):
    """How a write meets the value already there."""

    REPLACE = "replace"
    APPEND = "append"
    MERGE = "merge"
    ADD = "add"


Write = tuple[str, Any]
"""A state field and the value written to it."""


class RunState(TypedDict):
    """JSON values only. `handles` holds the way each finished node left by, None if it was skipped."""

    inputs: dict[str, Any]
    state: dict[str, Any]
    outputs: dict[str, dict[str, Any]]
    handles: dict[str, str | None]


class Update(TypedDict, total=False):
    """What one step adds to a `RunState`."""

    state: list[Write]
    outputs: dict[str, dict[str, Any]]
    handles: dict[str, str | None]


def join(current: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """Every key has one writer, so the order of parallel updates does not matter."""
    return {**current, **update}


def apply(
    reducers: Mapping[str, Reducer],
) -> Callable[[dict[str, Any], Sequence[Write] | dict[str, Any]], dict[str, Any]]:
    """The reducer of the `state` channel: the values after some writes (a dict sets the values whole)."""

    def reduce(current: dict[str, Any], update: Sequence[Write] | dict[str, Any]) -> dict[str, Any]:
        if isinstance(update, dict):
            return {**current, **update}
        values = dict(current)
        for field, value in update:
            values[field] = _reduced(reducers[field], values.get(field), value)
        return values

    return reduce


def _reduced(reducer: Reducer, current: Any, value: Any) -> Any:
    match reducer:
        case Reducer.APPEND:
            return [*(current or []), value]
        case Reducer.MERGE:
            return {**(current or {}), **value}
        case Reducer.ADD:
            return (current or 0) + value
        case Reducer.REPLACE:
            return value
