"""The text of a document while a parser writes it: blocks, blank line between, nothing unstorable."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from app.rag.components.parsers.errors import ParseError

Kind = Literal["heading", "paragraph", "list", "table", "code"]
KINDS: tuple[Kind, ...] = ("heading", "paragraph", "list", "table", "code")

MAX_BLOCKS = 1_000_000
SEPARATOR = "\n\n"

# PostgreSQL text holds neither NUL nor surrogates; the other controls, byte order marks, soft hyphens
# and zero-width spaces are invisible and would only break words apart for search.
_INVISIBLE = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u200b\ufeff\ufffe\uffff\ud800-\udfff]")
_LINE_END = re.compile("\r\n?|\x0c|\x85|\u2028|\u2029")


class DraftBlock(NamedTuple):
    """`level` is the rank of a heading (0 document title, 1 chapter, …), 0 for other kinds."""

    kind: Kind
    start: int
    end: int
    page: int | None
    level: int


@dataclass(slots=True)
class Draft:
    """A finished parse, in plain values that JSON can carry."""

    media_type: str
    text: str
    blocks: Sequence[DraftBlock]
    title: str | None = None
    page_count: int | None = None
    language: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


def clean(text: str) -> str:
    """`text` with line ends as newlines, no-break spaces as spaces, and without what cannot be stored."""
    if not text.isascii() or "\r" in text or "\x0c" in text:
        text = _LINE_END.sub("\n", text).replace("\xa0", " ")
    return _INVISIBLE.sub("", text)


def one_line(text: str) -> str:
    """`text` cleaned, with every run of whitespace as one space."""
    return " ".join(clean(text).split())


class Writer:
    """Collects blocks. Raises `ParseError` (`too_large`) beyond `max_text_bytes`."""

    def __init__(self, max_text_bytes: int) -> None:
        self._max_bytes = max_text_bytes
        self._parts: list[str] = []
        self._blocks: list[DraftBlock] = []
        self._length = 0
        self._bytes = 0

    @property
    def blocks(self) -> Sequence[DraftBlock]:
        return self._blocks

    def heading(self, text: str, level: int, *, page: int | None = None) -> None:
        self._add("heading", one_line(text), page, level)

    def add(self, kind: Kind, text: str, *, page: int | None = None) -> None:
        """Appends a block; one without visible text is left out."""
        text = "\n".join(line.rstrip() for line in clean(text).split("\n"))
        text = text.strip("\n").rstrip() if kind == "code" else text.strip()
        self._add(kind, text, page, 0)

    def table(self, rows: Sequence[Sequence[str]], *, page: int | None = None) -> None:
        """Appends a Markdown table whose first row is the head; empty rows are left out."""
        filled = [cells for row in rows if any(cells := [_cell(cell) for cell in row])]
        if not filled:
            return
        width = max(map(len, filled))
        lines = ["| " + " | ".join(row + [""] * (width - len(row))) + " |" for row in filled]
        lines.insert(1, "|" + " --- |" * width)
        self._add("table", "\n".join(lines), page, 0)

    def first_heading(self) -> str | None:
        for index, block in enumerate(self._blocks):
            if block.kind == "heading":
                return self._parts[index]
        return None

    def text(self) -> str:
        return SEPARATOR.join(self._parts)

    def _add(self, kind: Kind, text: str, page: int | None, level: int) -> None:
        if not text or text.isspace():
            return
        self._bytes += len(text) if text.isascii() else len(text.encode())
        if self._bytes > self._max_bytes or len(self._blocks) >= MAX_BLOCKS:
            raise ParseError(
                "too_large",
                f"The text is larger than allowed: at most {self._max_bytes} bytes in {MAX_BLOCKS} blocks",
            )
        start = self._length + len(SEPARATOR) if self._parts else 0
        self._length = start + len(text)
        self._parts.append(text)
        self._blocks.append(DraftBlock(kind, start, self._length, page, level))


def _cell(text: str) -> str:
    return one_line(text).replace("|", "\\|")
