"""Lines with cells to table rows: columns are the bands that cells share, rows are told by their leading."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from app.rag.components.parsers.pdf_lines import Cell, Line
from app.rag.components.parsers.pdf_rules import Rule
from app.rag.components.parsers.pdf_strips import TIGHT, Strip, merged, pitch_of, rows_of, strips_of

_PROSE_ROWS: Final = 4
_PROSE_CHARS: Final = 25
_MAX_HEAD: Final = 4  # strips of a table's head above its first rule
_ACROSS: Final = 0.5  # of a table's width that a rule between its rows covers

Band = tuple[float, float]


def table_rows(lines: Sequence[Line], rules: Sequence[Rule]) -> list[list[str]]:
    """The rows of a table without ruled columns, its wrapped cells made whole; the head is the first."""
    bands = column_bands(lines)
    if len(bands) < max(len(line.cells) for line in lines):
        return [[cell.text for cell in line.cells] for line in lines]
    strips = strips_of(lines, lambda cell: band_of(cell, bands))
    ruled = _ruled(strips, lines, rules)
    head = _head(strips, ruled)
    pitch = pitch_of(strips[head:]) or pitch_of(strips)
    parts = [strips[:head]] if head else []
    for start, end in pairwise(sorted({head, len(strips), *(index for index in ruled if index > head)})):
        parts += rows_of(strips[start:end], pitch)
    if not head:
        parts = _with_whole_head(parts)
    return [merged(part, len(bands)) for part in parts]


def prose_columns(lines: Sequence[Line]) -> list[list[Line]] | None:
    """The columns of running text that was drawn line by line across a page; None for a real table."""
    bands = _bands([cell for line in lines for cell in line.cells])
    if len(lines) < _PROSE_ROWS or len(bands) < 2:
        return None
    columns: list[list[Line]] = [[] for _ in bands]
    for line in lines:
        for cell in line.cells:
            columns[band_of(cell, bands)].append(alone(line, [cell]))
    if not all(columns):  # mirrored text, whose cells end before they begin
        return None
    lengths = [sum(len(line.text) for line in column) / len(column) for column in columns]
    return columns if min(lengths) > _PROSE_CHARS else None


def column_bands(lines: Sequence[Line]) -> list[Band]:
    """Where the columns are. Cells that span columns and single cells do not count."""
    rows = [list(strip.cells.values()) for strip in strips_of(lines, None) if len(strip.cells) > 1]
    bands = _bands([cell for row in rows for cell in row])
    if len(bands) >= max((len(row) for row in rows), default=0):
        return bands
    usual = Counter(map(len, rows)).most_common(1)[0][0]
    bands = _bands([cell for row in rows if len(row) == usual for cell in row])
    others = [cell for row in rows if len(row) != usual for cell in row if not _over(cell, bands)]
    return sorted(bands + _bands(others))


def band_of(cell: Cell, bands: Sequence[Band]) -> int:
    """The band that the cell overlaps most, or the nearest."""
    return max(range(len(bands)), key=lambda i: min(cell.right, bands[i][1]) - max(cell.left, bands[i][0]))


def alone(line: Line, cells: Sequence[Cell]) -> Line:
    """Cells of a line as a line of their own."""
    text = " ".join(cell.text for cell in cells)
    left, right = cells[0].left, cells[-1].right
    return Line(text, left, right, line.bottom, line.size, line.at, line.bold, tuple(cells))


def _bands(cells: Sequence[Cell]) -> list[Band]:
    bands: list[Band] = []
    for cell in sorted(cells, key=lambda each: each.left):
        if bands and cell.left <= bands[-1][1]:
            bands[-1] = (bands[-1][0], max(bands[-1][1], cell.right))
        else:
            bands.append((cell.left, cell.right))
    return bands


def _over(cell: Cell, bands: Sequence[Band]) -> bool:
    return any(cell.left <= right and left <= cell.right for left, right in bands)


def _ruled(strips: Sequence[Strip], lines: Sequence[Line], rules: Sequence[Rule]) -> list[int]:
    """Where rules across the table stand between strips: the indexes of the strips below them."""
    left, right = min(line.left for line in lines), max(line.right for line in lines)
    wide = [
        rule.at for rule in rules if min(rule.end, right) - max(rule.start, left) > _ACROSS * (right - left)
    ]
    return [
        index
        for index, (upper, lower) in enumerate(pairwise(strips), start=1)
        if any(lower.bottom + 0.5 * lower.size < at < upper.bottom + 0.5 * upper.size for at in wide)
    ]


def _head(strips: Sequence[Strip], ruled: Sequence[int]) -> int:
    """How many strips are the head by its looks: bold above others, or ruled off; 0 if none stands out."""
    bold = next((index for index, strip in enumerate(strips) if not strip.bold), 0)
    end = bold or (ruled[0] if ruled and ruled[0] <= _MAX_HEAD else 0)
    for index in range(1, end):
        upper, lower = strips[index - 1], strips[index]
        full = len(upper.cells) > 1 and upper.cells.keys() == lower.cells.keys() and not bold
        if upper.bottom - lower.bottom > TIGHT * lower.size or full or lower.has_values_under(upper):
            return index
    return end


def _with_whole_head(rows: list[list[Strip]]) -> list[list[Strip]]:
    """A first row whose cells all stand above those of the second, and only some do: its upper line."""
    if len(rows) < 3:
        return rows
    upper, lower = rows[0][-1], rows[1][0]
    missing = lower.cells.keys() - upper.cells.keys() - {0}
    tight = upper.bottom - lower.bottom <= TIGHT * lower.size
    if 0 in upper.cells or not missing or not tight or lower.has_values():
        return rows
    return [rows[0] + rows[1], *rows[2:]]
