"""Lines with cells to table rows: columns are the bands that the cells of all rows share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from app.rag.components.parsers.pdf_lines import Cell, Line

_PROSE_ROWS: Final = 4
_PROSE_CHARS: Final = 25

Band = tuple[float, float]


def table_rows(lines: Sequence[Line]) -> list[list[str]]:
    """One row of cell texts per line."""
    bands = _bands([cell for line in lines if len(line.cells) > 1 for cell in line.cells])
    if len(bands) < max(len(line.cells) for line in lines):
        return [[cell.text for cell in line.cells] for line in lines]
    return [_row(line.cells, bands) for line in lines]


def prose_columns(lines: Sequence[Line]) -> list[list[Line]] | None:
    """The columns of running text that was drawn line by line across a page; None for a real table."""
    bands = _bands([cell for line in lines for cell in line.cells])
    if len(lines) < _PROSE_ROWS or len(bands) != 2:
        return None
    columns: list[list[Line]] = [[], []]
    for line in lines:
        for cell in line.cells:
            columns[_index(cell, bands)].append(_alone(line, cell))
    lengths = [sum(len(line.text) for line in column) / len(column) for column in columns]
    return columns if min(lengths) > _PROSE_CHARS else None


def _bands(cells: Sequence[Cell]) -> list[Band]:
    bands: list[Band] = []
    for cell in sorted(cells, key=lambda each: each.left):
        if bands and cell.left <= bands[-1][1]:
            bands[-1] = (bands[-1][0], max(bands[-1][1], cell.right))
        else:
            bands.append((cell.left, cell.right))
    return bands


def _row(cells: Sequence[Cell], bands: Sequence[Band]) -> list[str]:
    row = [""] * len(bands)
    for cell in cells:
        index = _index(cell, bands)
        row[index] = f"{row[index]} {cell.text}".strip()
    return row


def _index(cell: Cell, bands: Sequence[Band]) -> int:
    """The band that the cell overlaps most."""
    return max(range(len(bands)), key=lambda i: min(cell.right, bands[i][1]) - max(cell.left, bands[i][0]))


def _alone(line: Line, cell: Cell) -> Line:
    return Line(cell.text, cell.left, cell.right, line.bottom, line.size, line.at, line.bold, (cell,))
