"""Lines of PDF pages to headings, paragraphs, lists and tables, by place, size and weight."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Final

from app.rag.components.parsers.draft import Kind, Writer
from app.rag.components.parsers.pdf_furniture import without_furniture
from app.rag.components.parsers.pdf_lines import HYPHEN, Line
from app.rag.components.parsers.pdf_table import prose_columns, table_rows

_LARGER: Final = 1.12  # a heading's size against the body's
_LOOSE: Final = 1.35  # a gap against the usual distance of lines
_HEADING_CHARS, _BOLD_HEADING_CHARS = 200, 100
_BULLET = re.compile(r"[\u2022\u2023\u25aa\u25cf\u25e6\u2043\u25a0\u2219\uf0b7\u2013*-]\s+")
_MARKER = re.compile(rf"(?:{_BULLET.pattern}|\(?(?:\d{{1,3}}|[a-z])[.)]\s+)(?=\S)")
_ENDED = re.compile(r"[.!?:;\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*$")
_LETTERS = re.compile(r"[^\W\d_].*[^\W\d_]")
_SPACELESS = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
_SPACED_OUT = re.compile(rf"(?<={_SPACELESS.pattern}) +(?={_SPACELESS.pattern})")


@dataclass(frozen=True, slots=True)
class Typography:
    """How the body of a document is set, and which larger sizes its headings have, largest first."""

    size: float
    pitch: float
    bold: bool
    headings: tuple[float, ...]

    def rank(self, line: Line) -> int | None:
        """The heading rank of a line by its looks, from 1; None for body text."""
        if not _LETTERS.search(line.text) or len(line.text) > _HEADING_CHARS:
            return None
        if line.size >= _LARGER * self.size:
            return min(self.headings.index(line.size) + 1, 6)
        bold_only = line.bold and not self.bold and line.size >= 0.9 * self.size
        if bold_only and len(line.text) <= _BOLD_HEADING_CHARS and not re.search(r"[.,;]$", line.text):
            return min(len(self.headings) + 1, 6)
        return None


@dataclass(slots=True)
class _Group:
    """Lines that become one block; `items` are the paragraphs or list items in it."""

    kind: Kind
    rank: int = 0
    left: float = 0
    right: float = 0
    items: list[str] = field(default_factory=list)
    last: Line | None = None

    def begin(self, line: Line, text: str) -> None:
        self.items.append(text)
        self.left = line.left
        self._extend(line)

    def join(self, line: Line) -> None:
        self.items[-1] = _joined(self.items[-1], line.text)
        self._extend(line)

    def _extend(self, line: Line) -> None:
        self.right = max(self.right, line.right)
        self.last = line


def write_pages(writer: Writer, pages: Sequence[Sequence[Line]]) -> None:
    """Writes the blocks of all pages; none spans two of them."""
    typography = _typography(pages)
    body = without_furniture(pages)
    for number, lines in enumerate(body, start=1):
        page = _Page(writer, typography, number)
        page.read(lines)
        page.flush()


class _Page:
    def __init__(self, writer: Writer, typography: Typography, number: int) -> None:
        self._writer = writer
        self._type = typography
        self._number = number
        self._group: _Group | None = None

    def read(self, lines: Sequence[Line]) -> None:
        index = 0
        while index < len(lines):
            end = self._table_end(lines, index)
            if end - index > 1:
                self._table(lines[index:end])
                index = end
            else:
                self._line(lines[index])
                index += 1

    def flush(self) -> None:
        """Writes the block that was gathered."""
        group, self._group = self._group, None
        if group is None:
            return
        text = _SPACED_OUT.sub("", "\n".join(group.items).replace(HYPHEN, "-"))
        if group.kind == "heading":
            self._writer.heading(text, group.rank, page=self._number)
        else:
            self._writer.add(group.kind, text, page=self._number)

    def _table(self, lines: Sequence[Line]) -> None:
        self.flush()
        columns = prose_columns(lines)
        if columns is None:
            self._writer.table(table_rows(lines), page=self._number)
            return
        for column in columns:
            for line in column:
                self._line(line)
            self.flush()

    def _line(self, line: Line) -> None:
        rank = self._type.rank(line)
        if rank is not None:
            self._heading(line, rank)
        elif found := _MARKER.match(line.text):
            self._item(line, found)
        elif self._group is not None and self._continues(self._group, line):
            self._group.join(line)
        else:
            self._open("paragraph").begin(line, line.text)

    def _heading(self, line: Line, rank: int) -> None:
        group = self._group
        if group is not None and group.kind == "heading" and group.rank == rank and self._near(group, line):
            group.join(line)
        else:
            self._open("heading", rank).begin(line, line.text)

    def _item(self, line: Line, marker: re.Match[str]) -> None:
        group = self._group
        dangling = group is not None and group.kind == "paragraph" and not _BULLET.match(line.text)
        if group is not None and dangling and self._continues(group, line):
            group.join(line)  # a number that a line happens to begin with
            return
        if group is None or group.kind != "list":
            group = self._open("list")
        text = "- " + line.text[marker.end() :] if _BULLET.match(line.text) else line.text
        group.begin(line, text)

    def _open(self, kind: Kind, rank: int = 0) -> _Group:
        self.flush()
        self._group = _Group(kind, rank)
        return self._group

    def _near(self, group: _Group, line: Line) -> bool:
        last = group.last
        assert last is not None  # noqa: S101  (a group is never empty)
        return 0 < last.bottom - line.bottom <= _LOOSE * line.size

    def _continues(self, group: _Group, line: Line) -> bool:
        """Whether a line without heading looks or marker belongs to the paragraph or item before it."""
        last = group.last
        if last is None or group.kind not in ("paragraph", "list"):
            return False
        if max(last.size, line.size) > _LARGER * min(last.size, line.size):
            return False
        ended = bool(_ENDED.search(last.text))
        drop = last.bottom - line.bottom
        if drop < -0.5 * line.size:  # the top of another column
            return not ended and line.text[:1].islower()
        if drop > _LOOSE * self._type.pitch:
            return False
        if group.kind == "list":
            return line.left > group.left + 0.3 * line.size or not ended
        return not (ended and (self._is_indented(last, line) or self._is_short(group, last, line)))

    @staticmethod
    def _is_indented(last: Line, line: Line) -> bool:
        return line.left > last.left + 0.8 * line.size

    @staticmethod
    def _is_short(group: _Group, last: Line, line: Line) -> bool:
        right = max(group.right, line.right)
        return last.right < right - 0.12 * (right - min(last.left, line.left))

    def _table_end(self, lines: Sequence[Line], start: int) -> int:
        """The index after the table that begins at `start`; at most `start + 1` when none does."""
        if not _is_row(lines[start]):
            return start
        end, index = start + 1, start + 1
        while index < len(lines) and self._same_table(lines[start:index], lines[index]):
            index += 1
            if _is_row(lines[index - 1]):
                end = index
        return end

    def _same_table(self, rows: Sequence[Line], line: Line) -> bool:
        drop = rows[-1].bottom - line.bottom
        if not -0.3 * line.size <= drop <= 3.5 * max(self._type.pitch, line.size):
            return False
        if _is_row(line):
            return True
        # A line of one cell is a wrapped cell or an unfilled row if it keeps to one column.
        left, right = min(row.left for row in rows[-20:]), max(row.right for row in rows[-20:])
        narrow = line.right - line.left < 0.6 * (right - left)
        return narrow and left - 1 <= line.left and line.right <= right + 1 and self._type.rank(line) is None


def _is_row(line: Line) -> bool:
    """Two cells or more, unless the first is only the marker of a list item."""
    if len(line.cells) != 2:
        return len(line.cells) > 2
    first = line.cells[0].text + " "
    marker = _MARKER.match(first + "x")
    return marker is None or marker.end() != len(first)


def _joined(text: str, line: str) -> str:
    """Two lines as one: a word broken at the line's end is made whole."""
    if text.endswith((HYPHEN, "-")) and text[-2:-1].isalnum():
        whole = text[-2].islower() and line[:1].islower()
        return text[:-1] + ("" if whole else "-") + line
    if _SPACELESS.match(text[-1:]) and _SPACELESS.match(line):
        return text + line
    return f"{text} {line}"


def _typography(pages: Sequence[Sequence[Line]]) -> Typography:
    sizes: Counter[float] = Counter()
    bold = total = 0
    for page in pages:
        for line in page:
            sizes[line.size] += len(line.text)
            total += len(line.text)
            bold += len(line.text) * line.bold
    size = max(sizes, key=lambda each: (sizes[each], -each)) if sizes else 10.0
    drops = [
        before.bottom - after.bottom
        for page in pages
        for before, after in pairwise(page)
        if before.size == after.size == size and 0.8 * size < before.bottom - after.bottom < 2.5 * size
    ]
    return Typography(
        size,
        median(drops) if drops else 1.2 * size,
        bold * 2 > total,
        tuple(sorted((each for each in sizes if each >= _LARGER * size), reverse=True)),
    )
