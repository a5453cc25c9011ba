"""Markers `[n]` that a model leaves in its text, and the passages behind them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from app.agent.core.interfaces import Citation, Passage

_MARKER = re.compile(r"\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")


def unexplained(
    text: str, context: Mapping[int, Passage], citations: Sequence[Citation] = ()
) -> Iterator[Citation]:
    """For each marker `[n]` that the model left without a citation: passage n as a whole."""
    explained = {citation.index for citation in citations}
    for marker in _MARKER.finditer(text):
        for index in map(int, marker[1].split(",")):
            if index in explained or index not in context:
                continue
            explained.add(index)
            passage = context[index]
            yield Citation(
                index=index,
                chunk_id=passage.chunk_id,
                document_id=passage.document_id,
                title=passage.title,
                start=passage.start,
                end=passage.end,
                quote=passage.text,
                page=passage.page,
            )
