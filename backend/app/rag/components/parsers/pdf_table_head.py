"""The head of a table whose wrapped cells were drawn one after the other, before the first row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from app.rag.components.parsers.pdf_lines import Line
from app.rag.components.parsers.pdf_strips import BESIDE, LEVEL, TIGHT
from app.rag.components.parsers.pdf_table import Band, band_of, column_bands
from app.rag.components.parsers.pdf_typography import ENDED, LARGER, MARKER

_ROW: Final = 2.6  # of a line's size: the largest distance from the head to the first row
_TALLEST: Final = 8.0  # of a line's size: how high a cell of the head may begin above the first row
_NARROW: Final = 0.6  # of a table's width
_CAPTION = re.compile(r"(?:table|tab\.|tabelle|figure|fig\.)\s*\d", re.IGNORECASE)


def head_start(lines: Sequence[Line], low: int, start: int, *, end: int) -> int:
    """The index, from `low`, at which the head of the table in `lines[start:end]` begins."""
    bands = column_bands(lines[start:end])
    if len(bands) < max(len(line.cells) for line in lines[start:end]):
        return start
    head = _Head(lines[start:end], bands)
    index = start
    while index > low and head.takes(lines[index - 1]):
        index -= 1
    return start - head.sure()


class _Head:
    """Lines above a table, gathered from the nearest on."""

    def __init__(self, body: Sequence[Line], bands: Sequence[Band]) -> None:
        self._bands = bands
        self._first = body[0]
        self._left, self._right = min(line.left for line in body), max(line.right for line in body)
        self._top = body[0].bottom
        # The body may begin amid the head, with the cells after a wrapped one.
        first_row = next(line for line in body if line.left < self._left + line.size)
        self._floor = first_row.bottom + (LEVEL if first_row is not body[0] else -LEVEL) * first_row.size
        self._plain = not all(line.bold for line in body)
        self._taken: list[Line] = []

    def takes(self, line: Line) -> bool:
        """Takes a line that may be a wrapped cell of the head."""
        reach = TIGHT if self._taken else _TALLEST
        if not self._fits(line) or line.bottom - self._top > reach * line.size:
            return False
        self._taken.append(line)
        self._top = max(self._top, line.bottom)
        return True

    def sure(self) -> int:
        """How many of the lines taken are certainly cells: a caption or a paragraph stands alone."""
        taken = list(self._taken)
        nearest = min((line.bottom for line in taken), default=0.0)
        if nearest - self._first.bottom > _ROW * self._first.size:
            return 0
        while taken and not self._is_cell(taken[-1], taken[:-1]):
            taken.pop()
        return len(taken)

    def _fits(self, line: Line) -> bool:
        if len(line.cells) > 1 or max(line.size, self._first.size) > LARGER * min(
            line.size, self._first.size
        ):
            return False
        if line.right - line.left > _NARROW * (self._right - self._left):
            return False
        if MARKER.match(line.text) or _CAPTION.match(line.text):
            return False
        over = sum(line.left <= right and left <= line.right for left, right in self._bands)
        inside = self._left - 1 <= line.left <= self._right
        return inside and over <= 1 and line.bottom > self._floor

    def _is_cell(self, line: Line, nearer: Sequence[Line]) -> bool:
        beside = [other for other in (*nearer, self._first) if self._band(other) != self._band(line)]
        if any(abs(other.bottom - line.bottom) <= BESIDE * line.size for other in beside):
            return True
        # One above the other: the upper line of a cell, when it is not where a paragraph would begin.
        below = nearer[-1] if nearer else self._first
        if not 0 < line.bottom - below.bottom <= TIGHT * line.size or ENDED.search(line.text):
            return False
        return self._band(line) > 0 or (line.bold and below.bold and self._plain)

    def _band(self, line: Line) -> int:
        return band_of(line.cells[0], self._bands)
