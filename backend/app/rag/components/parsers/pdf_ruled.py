"""The rows of a ruled table: the rules tell its columns, and its rows unless only the head is ruled off."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Final

from app.rag.components.parsers.pdf_grid import Grid
from app.rag.components.parsers.pdf_lines import Cell, Line
from app.rag.components.parsers.pdf_strips import TIGHT, Strip, merged, pitch_of, rows_of, strips_of

_MANY: Final = 3  # strips that look like rows before rules are doubted
_FULL: Final = 0.6  # of the strips
_WRAPPED: Final = 0.75  # of its column that a line fills which goes on in the next
_LONGEST: Final = 400  # characters of a cell on average: more is a page laid out with rules


def on_grid(cell: Cell, line: Line, grid: Grid) -> bool:
    return grid.holds((cell.left + cell.right) / 2, cell.bottom + line.size / 2)


def grid_rows(lines: Sequence[Line], grid: Grid) -> list[list[str]]:
    """The rows with text, without the columns that have none; empty when that is no table."""
    strips = strips_of(lines, lambda cell: grid.column(cell.left, cell.right))
    used = sorted({column for strip in strips for column in strip.cells})
    width = len(grid.columns) - 1
    rows: list[list[str]] = []
    for _, part in groupby(strips, key=lambda strip: grid.row(strip.bottom + strip.size / 2)):
        group = list(part)
        doubtful = 2 * len(group) > len(strips)
        rows += [merged(row, width) for row in (_rows(group, grid) if doubtful else [group])]
    rows = [[row[column] for column in used] for row in rows]
    return rows if len(used) > 1 and len(rows) > 1 and _is_table(rows) else []


def _rows(part: Sequence[Strip], grid: Grid) -> list[list[Strip]]:
    used = {column for strip in part for column in strip.cells}
    full = [strip for strip in part if strip.is_full() and 2 * len(strip.cells) > len(used)]
    if len(full) < _MANY or len(full) < _FULL * len(part):
        return [list(part)]
    steps = list(pairwise(full))
    loose = sum(
        lower.has_values_under(upper) or upper.bottom - lower.bottom > TIGHT * lower.size
        for upper, lower in steps
    )
    if 2 * loose < len(steps) and _fills(full[:-1], grid):
        return [list(part)]
    return rows_of(part, pitch_of(part))


def _fills(strips: Sequence[Strip], grid: Grid) -> bool:
    """Whether the text of a column mostly reaches its right edge, as wrapped text does."""
    shares: dict[int, list[float]] = {}
    for strip in strips:
        for column, cell in strip.cells.items():
            room = grid.columns[column + 1] - cell.left
            shares.setdefault(column, []).append((cell.right - cell.left) / max(room, 1.0))
    return max(sum(share) / len(share) for share in shares.values()) >= _WRAPPED


def _is_table(rows: Sequence[Sequence[str]]) -> bool:
    """Two rows at least with two cells of a cell's length."""
    texts = [text for row in rows for text in row if text]
    filled = sum(sum(map(bool, row)) > 1 for row in rows)
    return filled > 1 and sum(map(len, texts)) <= _LONGEST * len(texts)
