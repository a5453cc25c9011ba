"""A child's answer as the document the rest of the platform knows, checked as input from outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from app.rag.components.parsers.draft import KINDS
from app.rag.types import Block, BlockKind, ParsedDocument

_KINDS = tuple(BlockKind(kind) for kind in KINDS)


def document_from(answer: Mapping[str, Any], text: str) -> ParsedDocument:
    """Raises `ValueError`, `KeyError` or `TypeError` when the answer is not a sound document."""
    return ParsedDocument(
        text=text,
        blocks=tuple(_blocks(answer["blocks"], text)),
        title=answer["title"],
        page_count=answer["page_count"],
        language=answer["language"],
        media_type=answer["media_type"],
        metadata=dict(answer["metadata"]),
    )


def _blocks(rows: Sequence[Sequence[Any]], text: str) -> Iterator[Block]:
    """Blocks under the headings above them; a heading belongs to the section that it opens."""
    open_headings: list[tuple[int, str]] = []
    path: tuple[str, ...] = ()
    reached = 0
    for kind, start, end, page, level in rows:
        if not reached <= start < end <= len(text):
            raise ValueError(f"block {start}-{end} does not follow {reached} within {len(text)}")
        reached = end
        if _KINDS[kind] is BlockKind.HEADING:
            while open_headings and open_headings[-1][0] >= level:
                open_headings.pop()
            open_headings.append((level, text[start:end]))
            path = tuple(title for _, title in open_headings)
        yield Block(_KINDS[kind], start, end, page, path)
