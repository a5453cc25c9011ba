"""The lines of a PDF page with place, size and weight, and split into cells where wide gaps are."""

from __future__ import annotations

import ctypes
import math
import re
from dataclasses import dataclass
from typing import Any, Final

import pypdfium2_raw as pdfium  # type: ignore[import-untyped]

HYPHEN: Final = "\ufffe"  # what pdfium writes for a hyphen at a line's end, in place of the line break
_GAP: Final = 1.0  # of the line's height: wider than any space between words, narrower than between cells
_BOLD = re.compile(rb"bold|black|heavy|semibold|demi", re.IGNORECASE)
_BOLD_WEIGHT: Final = 600
_LINE = re.compile(rf"((?:(?!\r\n)[^{HYPHEN}])*)(\r\n|{HYPHEN}|\Z)", re.DOTALL)
_LIGATURES = {0xFB00 + i: s for i, s in enumerate(("ff", "fi", "fl", "ffi", "ffl", "st", "st"))}


@dataclass(frozen=True, slots=True)
class Cell:
    """Text between two wide gaps of a line."""

    text: str
    left: float
    right: float


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


def page_lines(page: Any, text_page: Any) -> list[Line]:
    """The lines of a page in pdfium's reading order; empty for a page without text."""
    reader = _PageReader(page, text_page)
    lines, offset = [], 0
    for piece in _LINE.finditer(reader.text):
        line = reader.line(piece[1], offset, broken=piece[2] == HYPHEN)
        if line is not None:
            lines.append(line)
        offset += _units(piece[0])
    return lines


class _PageReader:
    def __init__(self, page: Any, text_page: Any) -> None:
        self._text_page = text_page
        self._rotation = pdfium.FPDFPage_GetRotation(page)
        width, height = pdfium.FPDF_GetPageWidthF(page), pdfium.FPDF_GetPageHeightF(page)
        # The size is given as shown, character boxes are given unrotated.
        self._width, self._height = (width, height) if self._rotation % 2 == 0 else (height, width)
        self._shown_height = height or 1.0
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
        cells: tuple[Cell, ...] = (Cell(text, left, right),)
        if self._has_gaps(first, last, size):
            cells = self._cells(visible, begin, size)
        return Line(text, left, right, bottom, round(size, 1), bottom / self._shown_height, bold, cells)

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

    def _place(self, char: int) -> tuple[float, float, float, float]:
        """Left, bottom, right and top of a character on the page as shown."""
        box = self._box
        if not pdfium.FPDFText_GetLooseCharBox(self._text_page, char, box):
            return 0.0, 0.0, 0.0, 0.0
        match self._rotation:
            case 1:
                return box.bottom, self._width - box.right, box.top, self._width - box.left
            case 2:
                return (
                    self._width - box.right,
                    self._height - box.top,
                    self._width - box.left,
                    self._height - box.bottom,
                )
            case 3:
                return self._height - box.top, box.left, self._height - box.bottom, box.right
        return box.left, box.bottom, box.right, box.top

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
        match self._rotation:
            case 1:
                return bottom.value, top.value
            case 2:
                return self._width - right.value, self._width - left.value
            case 3:
                return self._height - top.value, self._height - bottom.value
        return left.value, right.value

    def _cells(self, visible: str, begin: int, size: float) -> tuple[Cell, ...]:
        cells: list[Cell] = []
        left: float | None = None
        part: list[str] = []
        right = 0.0
        unit = begin
        for word in visible.split(" "):
            if word:
                word_left = self._place(self._char(unit))[0]
                if part and word_left - right > _GAP * size:
                    cells.append(_cell(part, left or 0.0, right))
                    part, left = [], None
                left = word_left if left is None else left
                right = self._place(self._char(unit + _units(word) - 1))[2]
                part.append(word)
            unit += _units(word) + 1
        cells.append(_cell(part, left or 0.0, right))
        return tuple(cells)

    def _bold(self, char: int) -> bool:
        if pdfium.FPDFText_GetFontWeight(self._text_page, char) >= _BOLD_WEIGHT:
            return True
        name = ctypes.create_string_buffer(128)
        length = pdfium.FPDFText_GetFontInfo(self._text_page, char, name, 128, ctypes.c_int())
        return 0 < length <= 128 and bool(_BOLD.search(name.value))


def _cell(words: list[str], left: float, right: float) -> Cell:
    return Cell(" ".join(words).translate(_LIGATURES), left, right)


def _units(text: str) -> int:
    """Length in UTF-16 units, which is how pdfium counts."""
    if text.isascii() or max(text) <= "\uffff":
        return len(text)
    return len(text.encode("utf-16-le", "surrogatepass")) // 2
