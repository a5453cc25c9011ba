"""Running heads and feet of a PDF: lines apart from the body, at the same place on most pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from app.rag.components.parsers.pdf_lines import Line, Page
from app.rag.components.parsers.pdf_ruled import on_grid

_HEAD, _FOOT = 0.88, 0.1  # shares of the page height beyond which a line may be furniture
_MIN_PAGES: Final = 3
_SHARE: Final = 0.4  # below one half, because left and right pages often differ
_GRID: Final = 4  # points
_LONGEST: Final = 120  # characters of a line that may hold a page number
_APART: Final = 1.7  # of a line's size: what stands nearer to the body belongs to it
_ROW: Final = 3.5  # of a line's size: the largest distance of a table's rows
# A page number with or without its word, alone or after a dash. Other numbers ("Chapter 3") are content.
_PAGE_NUMBER = re.compile(
    r"(?:.*\s[|\u00b7\u2022\u2013\u2014-]\s*)?[\W_]*(?:(?:page|p\.|seite|p\u00e1gina|pagina|pag\.|strona|\u7b2c)\s*)?"
    r"(\d{1,5}|[ivxlc]{1,7})(?:\s*(?:of|/|von|de|di|z|sur)\s*(\d{1,5}))?[\W_\u9875\u30da\u30fc\u30b8]*",
    re.IGNORECASE,
)

Place = tuple[str, int]


def without_furniture(pages: Sequence[Page]) -> list[list[Line]]:
    """The lines of the pages without running heads, feet and page numbers."""
    seen = Counter(
        place for page in pages for place in {_place(line) for line in page.lines if _at_edge(line)}
    )
    needed = max(_MIN_PAGES, _SHARE * len(pages))
    running = {place for place, count in seen.items() if count >= needed}
    body = [_body(page, running) for page in pages] if running else []
    return body if any(body) else [list(page.lines) for page in pages]


def _body(page: Page, running: set[Place]) -> list[Line]:
    lines = page.lines
    suspects = {index for index, line in enumerate(lines) if _at_edge(line) and _place(line) in running}
    suspects -= set(_table_heads(page, suspects))
    kept = [line for index, line in enumerate(lines) if index not in suspects]
    # A line may join the body through a neighbour that joins it.
    while found := {index for index in suspects if any(_belongs_to(line, lines[index]) for line in kept)}:
        suspects -= found
        kept = [lines[index] for index in found]
    return [line for index, line in enumerate(lines) if index not in suspects]


def _belongs_to(body: Line, line: Line) -> bool:
    """Whether a line stands by a line of the body: near it, or as the repeated head of its columns."""
    apart = abs(line.bottom - body.bottom)
    if apart < _APART * line.size:
        return True
    lefts = [cell.left for cell in body.cells]
    aligned = sum(any(abs(cell.left - left) < 1 for left in lefts) for cell in line.cells)
    return aligned > 1 and apart < _ROW * line.size


def _table_heads(page: Page, suspects: set[int]) -> Iterator[int]:
    """Lines that repeat on each page because a ruled table does, which has other rows as well."""
    for grid in page.grids:
        rows = {
            index for index, line in enumerate(page.lines) if any(on_grid(c, line, grid) for c in line.cells)
        }
        if not rows <= suspects:
            yield from rows & suspects


def _at_edge(line: Line) -> bool:
    return line.at >= _HEAD or line.at <= _FOOT


def _place(line: Line) -> Place:
    """What the line says, any page number for any other, and how high it stands."""
    return " ".join(_constant(cell.text) for cell in line.cells), round(line.bottom / _GRID)


def _constant(text: str) -> str:
    found = _PAGE_NUMBER.fullmatch(text) if len(text) <= _LONGEST else None
    return text if found is None else text[: found.start(1)] + "#" + text[found.end(1) :]
