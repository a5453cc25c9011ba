"""Which lines of a PDF page are a table, and which are running text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from app.rag.components.parsers.pdf_lines import Line, Page
from app.rag.components.parsers.pdf_ruled import grid_rows, on_grid
from app.rag.components.parsers.pdf_strips import LEVEL, TIGHT
from app.rag.components.parsers.pdf_table import alone, prose_columns, table_rows
from app.rag.components.parsers.pdf_table_head import head_start
from app.rag.components.parsers.pdf_typography import MARKER, Typography

_GAP: Final = 3.5  # of a line's size, or of the distance of lines: the largest between rows
_TALLEST: Final = 6.0  # of a line's size: how high a wrapped cell may be
_NARROW: Final = 0.6  # of a table's width: a wider line is running text
_NUMBER = re.compile(r"\d{1,3}")
_STEP_CHARS: Final = 30  # numbered lines with less text on average are rows


@dataclass(frozen=True, slots=True)
class Table:
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True, slots=True)
class Prose:
    """Lines that no other part continues."""

    lines: Sequence[Line]


@dataclass(frozen=True, slots=True)
class Steps:
    """Numbered paragraphs, each with the lines it goes on in."""

    items: Sequence[Sequence[Line]]


Part = Table | Prose | Steps


def parts_of(page: Page, lines: Sequence[Line], typography: Typography) -> Iterator[Part]:
    """The parts of a page in reading order; `lines` are those of the page that are to be read."""
    reader = _Regions(page, typography)
    run: list[Line] = []
    for each in _with_ruled_tables(page, lines):
        if isinstance(each, Line):
            run.append(each)
            continue
        yield from reader.parts(run)
        run = []
        yield each
    yield from reader.parts(run)


def _with_ruled_tables(page: Page, lines: Sequence[Line]) -> Iterator[Line | Table]:
    """The lines, with the ruled tables where their first lines stand."""
    if not page.grids:
        yield from lines
        return
    pieces = [piece for line in lines for piece in _by_grid(line, page)]
    tables: dict[int, Table | None] = {}
    for number, grid in enumerate(page.grids):
        rows = grid_rows([line for line, place in pieces if place == number], grid)
        if rows:
            tables[number] = Table(rows)
    for line, place in pieces:
        if place not in tables:
            yield line
        elif table := tables[place]:
            tables[place] = None
            yield table


def _by_grid(line: Line, page: Page) -> list[tuple[Line, int | None]]:
    """The line, cut where it enters or leaves a ruled table, with the number of the table it is in."""
    places = [
        next((index for index, grid in enumerate(page.grids) if on_grid(cell, line, grid)), None)
        for cell in line.cells
    ]
    if len(set(places)) == 1:
        return [(line, places[0])]
    pieces: list[tuple[Line, int | None]] = []
    start = 0
    for end in range(1, len(places) + 1):
        if end == len(places) or places[end] != places[start]:
            pieces.append((alone(line, line.cells[start:end]), places[start]))
            start = end
    return pieces


class _Regions:
    """Finds tables by the gaps within lines."""

    def __init__(self, page: Page, typography: Typography) -> None:
        self._page = page
        self._type = typography

    def parts(self, lines: Sequence[Line]) -> Iterator[Part]:
        done = index = 0
        while index < len(lines):
            start, end, found = self._part(lines, done, index)
            if not found:
                index += 1
                continue
            if start > done:
                yield Prose(lines[done:start])
            yield from found
            done = index = end
        if done < len(lines):
            yield Prose(lines[done:])

    def _part(self, lines: Sequence[Line], done: int, index: int) -> tuple[int, int, list[Part]]:
        """What begins at `index`, with the lines that it takes; nothing if that is running text."""
        if len(lines[index].cells) < 2:
            return index, index, []
        steps = _steps(lines, index)
        if len(steps) > 1:
            return index, index + sum(map(len, steps)), [Steps(steps)]
        end = self._table_end(lines, index)
        if end - index < 2:
            return index, index, []
        columns = prose_columns(lines[index:end])
        if columns is not None:
            return index, end, [Prose(column) for column in columns]
        start = head_start(lines, done, index, end=end)
        rows = table_rows(lines[start:end], self._page.rules)
        return start, end, [Table(rows)] if len(rows) > 1 else []

    def _table_end(self, lines: Sequence[Line], start: int) -> int:
        """The index after the table that begins at `start`; at most `start + 1` when none does."""
        if not _is_row(lines[start]):
            return start
        end, index = start + 1, start + 1
        while index < len(lines) and self._same_table(lines[start:index], lines[index]):
            index += 1
            if _is_row(lines[index - 1]):
                end = index
        while end < index and _ends_row(lines[start:end], lines[end]):
            end += 1
        return end

    def _same_table(self, rows: Sequence[Line], line: Line) -> bool:
        recent = rows[-20:]
        if _is_beside(recent, line):
            return True
        gap = min(map(_foot, recent)) - line.bottom  # the last line may end above a wrapped cell
        rise = line.bottom - _foot(rows[-1])
        if rise > LEVEL * line.size or gap > _GAP * max(self._type.pitch, line.size):
            return False
        if _is_row(line):
            return True
        # A line of one cell is a wrapped cell or an unfilled row if it keeps to one column.
        left, right = min(row.left for row in recent), max(row.right for row in recent)
        narrow = line.right - line.left < _NARROW * (right - left)
        if not narrow or not _keeps_in(recent, line):
            return False
        return self._type.rank(line) is None or _goes_on(recent, line, left)


def _is_beside(recent: Sequence[Line], line: Line) -> bool:
    """Whether a line stands higher than the last and to its right, as the next cell after a wrapped one."""
    last = recent[-1]
    if line.left <= last.right or not LEVEL * line.size < line.bottom - _foot(last) <= _TALLEST * line.size:
        return False
    left, right = min(row.left for row in recent), max(line.right, *(row.right for row in recent))
    return len(line.cells) > 1 or line.right - line.left < _NARROW * (right - left)


def _foot(line: Line) -> float:
    return line.cells[-1].bottom


def _goes_on(recent: Sequence[Line], line: Line, left: float) -> bool:
    """Whether a line that looks like a heading is a wrapped cell of a table's head."""
    last = recent[-1]
    if last.size != line.size or not last.bold or not 0 < _foot(last) - line.bottom <= TIGHT * line.size:
        return False
    return line.left > left + 2 * line.size or all(row.bold for row in recent)


def _ends_row(rows: Sequence[Line], line: Line) -> bool:
    """Whether a line after the last with two cells still belongs to that row."""
    recent = rows[-20:]
    if not _keeps_in(recent, line):
        return False
    if _is_beside(recent, line):
        return True
    left = min(row.left for row in recent)
    return line.left > left + 2 * line.size and 0 < _foot(rows[-1]) - line.bottom <= TIGHT * line.size


def _keeps_in(recent: Sequence[Line], line: Line) -> bool:
    """Whether a line keeps within the breadth of a table, or begins where a cell after the first does."""
    left, right = min(row.left for row in recent), max(row.right for row in recent)
    if left - 1 <= line.left and line.right <= right + 1:
        return True
    return any(
        abs(cell.left - line.left) <= 1 for row in recent for cell in row.cells if cell.left > left + 1
    )


def _is_row(line: Line) -> bool:
    """Two cells or more, unless the first is only the marker of a list item."""
    if len(line.cells) != 2:
        return len(line.cells) > 2
    first = line.cells[0].text + " "
    marker = MARKER.match(first + "x")
    return marker is None or marker.end() != len(first)


def _steps(lines: Sequence[Line], start: int) -> list[list[Line]]:
    """Paragraphs with the numbers 1, 2, … beside them; empty when other lines begin at `start`."""
    items: list[list[Line]] = []
    first = lines[start]
    for line in lines[start:]:
        if len(line.cells) == 2 and _NUMBER.fullmatch(line.cells[0].text):
            if not _is_next(first, line, len(items) + 1):
                break
            items.append([line])
        elif not items or not _is_below(items[-1][-1], line, first.cells[1].left):
            break
        else:
            items[-1].append(line)
    length = sum(len(line.text) for item in items for line in item)
    return items if length >= _STEP_CHARS * len(items) else []


def _is_next(first: Line, line: Line, number: int) -> bool:
    if int(line.cells[0].text) != number:
        return False
    return abs(line.cells[1].left - first.cells[1].left) < line.size / 2 and line.size == first.size


def _is_below(last: Line, line: Line, left: float) -> bool:
    """Whether a line goes on under the text of a numbered one."""
    aligned = len(line.cells) == 1 and abs(line.left - left) < line.size / 2
    return aligned and 0 < last.bottom - line.bottom <= TIGHT * line.size
