"""Ruled tables of a PDF page: rules that cross one another, and the columns and rows between them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from app.rag.components.parsers.pdf_rules import Rule, Rules

_REACH: Final = 3.0  # points by which rules may miss each other and still meet
_MAX_CROSSINGS: Final = 100_000
_COVERED: Final = 0.6  # of a table's height or width that its inner rules cover, on average


@dataclass(frozen=True, slots=True)
class Grid:
    """A ruled table of two columns and two rows at least; edges rise from the lower left of the page."""

    columns: tuple[float, ...]
    rows: tuple[float, ...]
    uprights: tuple[Rule, ...]

    def holds(self, x: float, y: float) -> bool:
        return self.columns[0] < x < self.columns[-1] and self.rows[0] < y < self.rows[-1]

    def column(self, left: float, right: float) -> int:
        """The column, from the left, that most of a span lies in; the first if they share it equally."""
        shares = [min(right, end) - max(left, start) for start, end in pairwise(self.columns)]
        return shares.index(max(shares))

    def row(self, y: float) -> int:
        """The row, from the top."""
        return len(self.rows) - bisect_left(self.rows, y) - 1

    def splits(self, left: float, right: float, y: float) -> bool:
        """Whether a rule stands between two places at one height."""
        if not self.rows[0] < y < self.rows[-1]:
            return False
        return any(left < rule.at < right and rule.start < y < rule.end for rule in self.uprights)


def grids(rules: Rules) -> tuple[Grid, ...]:
    """The ruled tables among the rules of a page, from top to bottom."""
    if not rules.vertical or len(rules.horizontal) * len(rules.vertical) > _MAX_CROSSINGS:
        return ()
    found = (_grid(*part) for part in _parts(rules))
    return tuple(sorted((each for each in found if each), key=lambda each: -each.rows[-1]))


def _parts(rules: Rules) -> Iterator[tuple[list[Rule], list[Rule]]]:
    """The rules in sets that hang together."""
    columns = set(rules.vertical)
    rows = set(rules.horizontal)
    while columns:
        vertical, horizontal = [columns.pop()], list[Rule]()
        reached: tuple[Iterable[Rule], bool] = (vertical, True)
        while reached[0]:
            frontier, upright = reached
            left = rows if upright else columns
            met = {rule for rule in left if any(_meet(rule, each) for each in frontier)}
            left -= met
            (horizontal if upright else vertical).extend(met)
            reached = (met, not upright)
        yield horizontal, vertical


def _meet(one: Rule, other: Rule) -> bool:
    """Whether rules along different axes meet."""
    return (
        other.start - _REACH <= one.at <= other.end + _REACH
        and one.start - _REACH <= other.at <= one.end + _REACH
    )


def _grid(horizontal: Sequence[Rule], vertical: Sequence[Rule]) -> Grid | None:
    columns, rows = _edges(vertical, horizontal), _edges(horizontal, vertical)
    if len(columns) < 3 or len(rows) < 3:
        return None
    if not (_is_regular(vertical, columns, rows) and _is_regular(horizontal, rows, columns)):
        return None
    return Grid(columns, rows, tuple(sorted(vertical, key=lambda rule: rule.at)))


def _edges(across: Sequence[Rule], along: Sequence[Rule]) -> tuple[float, ...]:
    """Where rules stand, and how far the crossing ones reach when the outermost are not drawn."""
    places = sorted({rule.at for rule in across} | {end for rule in along for end in (rule.start, rule.end)})
    drawn = {rule.at for rule in across}
    outer = {places[0], places[-1]} if places else set()
    edges: list[float] = []
    for place in places:
        if place not in drawn and place not in outer:
            continue
        if edges and place - edges[-1] <= _REACH:
            edges[-1] = place if place in drawn else edges[-1]
        else:
            edges.append(place)
    return tuple(edges)


def _is_regular(across: Sequence[Rule], edges: Sequence[float], along: Sequence[float]) -> bool:
    """Forms and drawings have many short rules where a table has few long ones."""
    inner = edges[1:-1]
    whole = along[-1] - along[0]
    covered = sum(
        rule.end - rule.start for rule in across if any(abs(rule.at - edge) <= _REACH for edge in inner)
    )
    return covered >= _COVERED * whole * len(inner)
