"""What came out of a sandbox, held against what JSON carries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from app.core.errors import Invalid

_DEEPEST = 32
_MOST_TEXT = 4 * 2**20
_MOST_VALUES = 200_000


@dataclass(slots=True)
class JsonValues:
    """Makes JSON values: tuples become lists, and what has no place in JSON is refused.

    `failed` is raised for what is no JSON, `too_costly` for what is too much of it.
    """

    failed: type[Invalid]
    too_costly: type[Invalid]
    text: int = 0
    count: int = 0

    def of(self, value: Any, depth: int = 0) -> Any:
        self.count += 1
        if self.count > _MOST_VALUES:
            raise self.too_costly(f"the value holds more than {_MOST_VALUES} values")
        if depth > _DEEPEST:
            raise self.too_costly(f"the value is nested deeper than {_DEEPEST} levels")
        match value:
            case None | bool():
                return value
            case str():
                return self._counted(value)
            case int() | float() if _fits(value):
                return value
            case list() | tuple():
                return [self.of(item, depth + 1) for item in value]
            case dict() if all(isinstance(name, str) for name in value):
                return {self._counted(name): self.of(item, depth + 1) for name, item in value.items()}
        large = isinstance(value, int)
        what = "an integer beyond 2^53 - 1" if large else type(value).__name__
        raise self.failed(f"the value holds what JSON cannot carry: {what}")

    def _counted(self, text: str) -> str:
        self.text += len(text)
        if self.text > _MOST_TEXT:
            raise self.too_costly(f"the value holds more than {_MOST_TEXT} characters")
        return text


def _fits(number: float) -> bool:
    """Whether JSON carries it exactly (RFC 7493)."""
    return abs(number) < 2**53 if isinstance(number, int) else math.isfinite(number)
