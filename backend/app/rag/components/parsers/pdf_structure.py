"""Lines of PDF pages to headings, paragraphs, lists and tables, by place, size and weight."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from app.rag.components.parsers.draft import Kind, Writer
from app.rag.components.parsers.pdf_furniture import without_furniture
from app.rag.components.parsers.pdf_lines import HYPHEN, Line, Page
from app.rag.components.parsers.pdf_regions import Part, Steps, Table, parts_of
from app.rag.components.parsers.pdf_typography import (
    BULLET,
    ENDED,
    LARGER,
    MARKER,
    SPACELESS,
    Typography,
    joined,
    typography_of,
)

_LOOSE: Final = 1.35  # a gap against the usual distance of lines
_SPACED_OUT = re.compile(rf"(?<={SPACELESS.pattern}) +(?={SPACELESS.pattern})")


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
        self.items[-1] = joined(self.items[-1], line.text)
        self._extend(line)

    def _extend(self, line: Line) -> None:
        self.right = max(self.right, line.right)
        self.last = line


def write_pages(writer: Writer, pages: Sequence[Page]) -> None:
    """Writes the blocks of all pages; none spans two of them."""
    typography = typography_of([page.lines for page in pages])
    for number, (page, lines) in enumerate(zip(pages, without_furniture(pages), strict=True), start=1):
        blocks = _PageBlocks(writer, typography, number)
        for part in parts_of(page, lines, typography):
            blocks.read(part)


class _PageBlocks:
    def __init__(self, writer: Writer, typography: Typography, number: int) -> None:
        self._writer = writer
        self._type = typography
        self._number = number
        self._group: _Group | None = None

    def read(self, part: Part) -> None:
        """Writes a part of the page."""
        if isinstance(part, Table):
            self._writer.table(part.rows, page=self._number)
        elif isinstance(part, Steps):
            self._steps(part)
        else:
            for line in part.lines:
                self._line(line)
        self.flush()

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

    def _steps(self, steps: Steps) -> None:
        group = self._open("list")
        for first, *others in steps.items:
            group.begin(first, first.text)
            for line in others:
                group.join(line)

    def _line(self, line: Line) -> None:
        rank = self._type.rank(line)
        if rank is not None:
            self._heading(line, rank)
        elif found := MARKER.match(line.text):
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
        dangling = group is not None and group.kind == "paragraph" and not BULLET.match(line.text)
        if group is not None and dangling and self._continues(group, line):
            group.join(line)  # a number that a line happens to begin with
            return
        if group is None or group.kind != "list":
            group = self._open("list")
        text = "- " + line.text[marker.end() :] if BULLET.match(line.text) else line.text
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
        if max(last.size, line.size) > LARGER * min(last.size, line.size):
            return False
        ended = bool(ENDED.search(last.text))
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
