"""How the body of a PDF is set, and what stands out from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Final

from app.rag.components.parsers.pdf_lines import HYPHEN, Line

LARGER: Final = 1.12  # a heading's size against the body's
_HEADING_CHARS, _BOLD_HEADING_CHARS = 200, 100
BULLET = re.compile(r"[\u2022\u2023\u25aa\u25cf\u25e6\u2043\u25a0\u2219\uf0b7\u2013*-]\s+")
MARKER = re.compile(rf"(?:{BULLET.pattern}|\(?(?:\d{{1,3}}|[a-z])[.)]\s+)(?=\S)")
ENDED = re.compile(r"[.!?:;\u3002\uff01\uff1f][\"'\u201d\u2019)\]]*$")
SPACELESS = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")
_LETTERS = re.compile(r"[^\W\d_].*[^\W\d_]")


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
        if line.size >= LARGER * self.size:
            return min(self.headings.index(line.size) + 1, 6)
        bold_only = line.bold and not self.bold and line.size >= 0.9 * self.size
        if bold_only and len(line.text) <= _BOLD_HEADING_CHARS and not re.search(r"[.,;]$", line.text):
            return min(len(self.headings) + 1, 6)
        return None


def typography_of(pages: Sequence[Sequence[Line]]) -> Typography:
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
        tuple(sorted((each for each in sizes if each >= LARGER * size), reverse=True)),
    )


def joined(text: str, line: str) -> str:
    """Two lines as one: a word broken at the line's end is made whole."""
    if text.endswith((HYPHEN, "-")) and text[-2:-1].isalnum():
        whole = text[-2].islower() and line[:1].islower()
        return text[:-1] + ("" if whole else "-") + line
    if SPACELESS.match(text[-1:]) and SPACELESS.match(line):
        return text + line
    return f"{text} {line}"
