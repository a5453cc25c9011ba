"""The lines of a PDF page with place, size and weight, and split into cells where wide gaps are."""

from __future__ import annotations

import ctypes
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2_raw as pdfium  # type: ignore[import-untyped]

from app.rag.components.parsers.pdf_frame import Box, Frame, frame_of
from app.rag.components.parsers.pdf_grid import Grid, grids
from app.rag.components.parsers.pdf_rules import Rule, page_rules

HYPHEN: Final = "\ufffe"  # what pdfium writes for a hyphen at a line's end, in place of the line break
_TOUCH: Final = 1.0  # points by which text may stand on the edge of its column
_GAP: Final = 1.0  # of the line's height: wider than any space between words, narrower than between cells
_BOLD = re.compile(rb"bold|black|heavy|semibold|demi", re.IGNORECASE)
_BOLD_WEIGHT: Final = 600
_LINE = re.compile(rf"((?:(?!\r\n)[^{HYPHEN}])*)(\r\n|{HYPHEN}|\Z)", re.DOTALL)
_LIGATURES = {0xFB00 + i: s for i, s in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}


@dataclass(frozen=True, slots=True)
class Cell:
    """Text between two wide gaps of a line; the cells of a line may differ in height a little."""

    text: str
    left: float
    right: float
    bottom: float


@dataclass(frozen=True, slots=True)
class Line:
    """Places in points as the page is shown, from its lower left; `at` is `bottom` as a share of the page."""

    text: str
    left: float
    right: float
    bottom: float
    size: float
    at: float
    bold: bool
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """Lines in pdfium's reading order; `rules` are those drawn across the page, from bottom to top."""

    lines: Sequence[Line] = ()
    rules: Sequence[Rule] = ()
    grids: Sequence[Grid] = ()


def read_page(page: Any, text_page: Any) -> Page:
    """What a page says and how it is ruled; without lines for a page without text."""
    frame = frame_of(page)
    rules = page_rules(page, frame)
    ruled = grids(rules)
    reader = _PageReader(text_page, frame, ruled)
    lines, offset = [], 0
    for piece in _LINE.finditer(reader.text):
        line = reader.line(piece[1], offset, broken=piece[2] == HYPHEN)
        if line is not None:
            lines.append(line)
        offset += _units(piece[0])
    return Page(lines, rules.horizontal, ruled)


class _PageReader:
    def __init__(self, text_page: Any, frame: Frame, ruled: Sequence[Grid]) -> None:
        self._text_page = text_page
        self._frame = frame
        self._grids = ruled
        count = pdfium.FPDFText_CountChars(text_page)
        buffer = ctypes.create_string_buffer(2 * (max(count, 0) + 1))
        written = pdfium.FPDFText_GetText(
            text_page, 0, count, ctypes.cast(buffer, ctypes.POINTER(ctypes.c_ushort))
        ) if count > 0 else 0  # fmt: skip
        units = buffer.raw[: 2 * max(written - 1, 0)]
        self.text = units.decode("utf-16-le", "surrogatepass")
        self._box = pdfium.FS_RECTF()
        self._matrix = pdfium.FS_MATRIX()

    def line(self, raw: str, offset: int, *, broken: bool) -> Line | None:
        """The line `raw` that begins `offset` UTF-16 units into the page's text; `broken`: amid a word."""
        visible = raw.strip(" \t\x00\n\r")
        if not visible:
            return None
        begin = offset + _units(raw[: len(raw) - len(raw.lstrip(" \t\x00\n\r"))])
        first = self._char(begin)
        last = self._char(begin + _units(visible) - 1)
        left, bottom, right, _ = self._place(first)
        right = max(right, self._place(last)[2])
        size = self._size((first + last) // 2) or self._size(first) or self._size(last) or 10.0
        text = visible.translate(_LIGATURES) + HYPHEN * broken
        bold = self._bold(first) and self._bold(last)
        cells: tuple[Cell, ...] = (Cell(text, left, right, bottom),)
        middle = bottom + size / 2
        if self._splits(left, right, middle) or self._has_gaps(first, last, size):
            cells = self._cells(visible + HYPHEN * broken, begin, size, middle=middle)
        return Line(text, left, right, bottom, round(size, 1), bottom / self._frame.shown_height, bold, cells)

    def _char(self, unit: int) -> int:
        return int(pdfium.FPDFText_GetCharIndexFromTextIndex(self._text_page, unit))

    def _size(self, char: int) -> float:
        """The font size as shown: the size that was set, scaled by the text matrix; 0 if there is none."""
        matrix = self._matrix
        # A space that pdfium put into a gap has a size of its own invention.
        if pdfium.FPDFText_IsGenerated(self._text_page, char) == 1:
            return 0.0
        if not pdfium.FPDFText_GetMatrix(self._text_page, char, matrix):
            return 0.0
        return float(pdfium.FPDFText_GetFontSize(self._text_page, char)) * math.hypot(matrix.c, matrix.d)

    def _place(self, char: int) -> Box:
        """Left, bottom, right and top of a character on the page as shown."""
        box = self._box
        if not pdfium.FPDFText_GetLooseCharBox(self._text_page, char, box):
            return 0.0, 0.0, 0.0, 0.0
        return self._frame.shown(box.left, box.bottom, box.right, box.top)

    def _has_gaps(self, first: int, last: int, size: float) -> bool:
        """A look at the line's rectangles (few), to spare the look at its characters (many)."""
        count = pdfium.FPDFText_CountRects(self._text_page, first, last - first + 1)
        if count < 2:
            return False
        previous: float | None = None
        for index in range(count):
            left, right = self._rect(index)
            if previous is not None and left - previous > _GAP * size:
                return True
            previous = right
        return False

    def _rect(self, index: int) -> tuple[float, float]:
        left, top, right, bottom = (ctypes.c_double() for _ in range(4))
        pdfium.FPDFText_GetRect(self._text_page, index, left, top, right, bottom)
        shown = self._frame.shown(left.value, bottom.value, right.value, top.value)
        return shown[0], shown[2]

    def _splits(self, left: float, right: float, middle: float) -> bool:
        """Whether the edge of a ruled column lies between two places, which may touch it."""
        return any(grid.splits(left - _TOUCH, right + _TOUCH, middle) for grid in self._grids)

    def _cells(self, visible: str, begin: int, size: float, *, middle: float) -> tuple[Cell, ...]:
        cells: list[Cell] = []
        part: list[str] = []
        left = right = bottom = 0.0
        unit = begin
        for word in visible.split(" "):
            if word:
                word_left, word_bottom, _, _ = self._place(self._char(unit))
                if part and (word_left - right > _GAP * size or self._splits(right, word_left, middle)):
                    cells.append(_cell(part, left, right, bottom=bottom))
                    part = []
                if not part:
                    left, bottom = word_left, word_bottom
                right = self._place(self._char(unit + _units(word) - 1))[2]
                part.append(word)
            unit += _units(word) + 1
        cells.append(_cell(part, left, right, bottom=bottom))
        return tuple(cells)

    def _bold(self, char: int) -> bool:
        if pdfium.FPDFText_GetFontWeight(self._text_page, char) >= _BOLD_WEIGHT:
            return True
        name = ctypes.create_string_buffer(128)
        length = pdfium.FPDFText_GetFontInfo(self._text_page, char, name, 128, ctypes.c_int())
        return 0 < length <= 128 and bool(_BOLD.search(name.value))


def _cell(words: list[str], left: float, right: float, *, bottom: float) -> Cell:
    return Cell(" ".join(words).translate(_LIGATURES), left, right, bottom)


def _units(text: str) -> int:
    """Length in UTF-16 units, which is how pdfium counts."""
    if text.isascii() or max(text) <= "\uffff":
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
