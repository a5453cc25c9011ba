"""Data tables of HTML as rows of cell texts, so that every row can be read by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from selectolax.lexbor import LexborNode

_ROW_GROUPS: Final = frozenset({"thead", "tbody", "tfoot"})
_MAX_SPAN: Final = 50


def is_layout(table: LexborNode) -> bool:
    """Whether the table only places things on the page: its cells are read as ordinary content."""
    if (table.attributes.get("role") or "") in ("presentation", "none"):
        return True
    if table.css_first("td table, th table, h1, h2, h3") is not None:
        return True
    shape = [len(_cells(row)) for row in _rows(table)]
    return table.css_first("th") is None and (len(shape) < 2 or max(shape) < 2)


def read_table(table: LexborNode, text_of: Callable[[LexborNode], str]) -> list[list[str]]:
    """Rows of cell texts; a cell over several rows is repeated in each, one over several columns is not."""
    rows: list[list[str]] = []
    covering: dict[int, tuple[int, str]] = {}  # column → rows that a cell above still covers, and its text
    for row in _rows(table):
        cells: list[str] = []
        begun: dict[int, tuple[int, str]] = {}
        for cell in _cells(row):
            _fill_covered(cells, covering)
            width, height, text = _span(cell, "colspan"), _span(cell, "rowspan"), text_of(cell)
            texts = [text, *[""] * (width - 1)]
            if height > 1:
                begun.update((len(cells) + index, (height - 1, each)) for index, each in enumerate(texts))
            cells += texts
        _fill_covered(cells, covering)
        covering = {column: (left - 1, text) for column, (left, text) in covering.items() if left > 1} | begun
        rows.append(cells)
    return rows


def _fill_covered(cells: list[str], covering: dict[int, tuple[int, str]]) -> None:
    while len(cells) in covering:
        cells.append(covering[len(cells)][1])


def _rows(table: LexborNode) -> list[LexborNode]:
    rows = []
    for child in _children(table):
        if child.tag == "tr":
            rows.append(child)
        elif child.tag in _ROW_GROUPS:
            rows += [row for row in _children(child) if row.tag == "tr"]
    return rows


def _cells(row: LexborNode) -> list[LexborNode]:
    return [cell for cell in _children(row) if cell.tag in ("td", "th")]


def _children(node: LexborNode) -> Iterator[LexborNode]:
    child = node.child
    while child is not None:
        yield child
        child = child.next


def _span(cell: LexborNode, name: str) -> int:
    value = cell.attributes.get(name) or ""
    return min(max(int(value), 1), _MAX_SPAN) if value.isdecimal() and len(value) < 6 else 1
