"""Strips of a table: what stands at one height in its columns, and which strips make up a row."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple

from app.rag.components.parsers.pdf_lines import HYPHEN, Cell, Line
from app.rag.components.parsers.pdf_typography import joined

TIGHT: Final = 1.45  # of a line's size: the largest distance of lines within a cell
LEVEL: Final = 0.35  # of a line's size: as far as lines at one height differ
BESIDE: Final = 0.8  # of a line's size: nearer lines are side by side, centred in their cells
_NEARER: Final = 0.88  # of the distance of rows: lines as near as this are within a cell
_USUAL: Final = 0.6  # the share of distances that the distance of rows exceeds or equals
_VALUE = re.compile(r"[-+\u00b1\u2264\u2265<>~$\u20ac\u00a3\u00a5(]*\s?\d[\d.,:'/\s-]*[%\u00b0\w/]{0,6}\)?")


@dataclass(slots=True)
class Strip:
    """`cells` by their columns; the place and looks are those of its first line."""

    bottom: float
    size: float
    bold: bool
    cells: dict[int, Cell]

    def has_values(self) -> bool:
        return any(_VALUE.fullmatch(cell.text) for cell in self.cells.values())

    def has_values_under(self, upper: Strip) -> bool:
        """Whether a number stands under a number, which two lines of a wrapped text never are."""
        return any(
            column in upper.cells
            and _VALUE.fullmatch(cell.text)
            and _VALUE.fullmatch(upper.cells[column].text)
            for column, cell in self.cells.items()
        )

    def is_full(self) -> bool:
        return len(self.cells) > 1 and 0 in self.cells


def strips_of(lines: Sequence[Line], column: Callable[[Cell], int] | None) -> list[Strip]:
    """The cells of the lines from top to bottom; without `column` they are counted from the left."""
    levels: list[list[_Piece]] = []
    pieces = [piece for line in lines for piece in _pieces(line, column)]
    for piece in sorted(pieces, key=lambda each: -each.bottom):
        if levels and levels[-1][0].bottom - piece.bottom <= LEVEL * piece.line.size:
            levels[-1].append(piece)
        else:
            levels.append([piece])
    return [_strip(level) for level in levels]


class _Piece(NamedTuple):
    line: Line
    cell: Cell
    column: int | None
    bottom: float


def _pieces(line: Line, column: Callable[[Cell], int] | None) -> Iterator[_Piece]:
    """The cells of a line; within a column a raised one stands with the one before it."""
    if column is None:
        yield from (_Piece(line, cell, None, cell.bottom) for cell in line.cells)
        return
    bottoms: dict[int, float] = {}
    for cell in line.cells:
        place = column(cell)
        yield _Piece(line, cell, place, bottoms.setdefault(place, cell.bottom))


def _strip(level: Sequence[_Piece]) -> Strip:
    cells: dict[int, Cell] = {}
    for index, piece in enumerate(sorted(level, key=lambda each: each.cell.left)):
        place, cell = index if piece.column is None else piece.column, piece.cell
        before = cells.get(place)
        if before is not None:
            cell = Cell(f"{before.text} {cell.text}", before.left, cell.right, before.bottom)
        cells[place] = cell
    first = level[0]
    return Strip(first.bottom, first.line.size, all(piece.line.bold for piece in level), cells)


def pitch_of(strips: Sequence[Strip]) -> float:
    """The usual distance of rows in points; 0 when there are too few to tell."""
    drops = sorted(
        upper.bottom - lower.bottom
        for upper, lower in pairwise(strips)
        if lower.is_full() and upper.bottom - lower.bottom > BESIDE * lower.size
    )
    return drops[int(_USUAL * len(drops))] if drops else 0.0


def rows_of(strips: Sequence[Strip], pitch: float) -> list[list[Strip]]:
    """Strips that follow one another without a rule, gathered to rows."""
    rows: list[list[Strip]] = []
    for strip in strips:
        if rows and _continues(rows[-1], strip, pitch):
            rows[-1].append(strip)
        else:
            rows.append([strip])
    return rows


def _continues(row: Sequence[Strip], strip: Strip, pitch: float) -> bool:
    drop = row[-1].bottom - strip.bottom
    if drop > TIGHT * strip.size or any(strip.has_values_under(each) for each in row):
        return False
    if drop < BESIDE * strip.size:
        return True
    if drop <= _NEARER * pitch:
        return True
    filled = {column for each in row for column in each.cells}
    # With rows as close as lines, only an unfilled first column tells a wrapped cell.
    return 0 not in strip.cells and strip.cells.keys() <= filled and 2 * len(strip.cells) <= len(filled)


def merged(row: Sequence[Strip], width: int) -> list[str]:
    """The texts of a row of `width` columns, wrapped ones in one line."""
    texts = [""] * width
    for strip in row:
        for column, cell in sorted(strip.cells.items()):
            texts[column] = joined(texts[column], cell.text) if texts[column] else cell.text
    return [text.replace(HYPHEN, "-") for text in texts]
