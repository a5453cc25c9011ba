"""What of a chunk goes into the index: the text that is embedded, its terms, its identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from app.rag.sparse import encode_document, tokenize
from app.rag.types import Chunk, ParsedDocument, SparseVector


@dataclass(frozen=True, slots=True)
class Indexed:
    """A chunk's text with its document's title before it, so that a chunk is found by what it is part of."""

    text: str
    tokens: tuple[str, ...]

    @property
    def digest(self) -> bytes:
        """Equal for equal texts: the key under which a vector may be taken again."""
        return sha256(self.text.encode()).digest()

    def sparse(self, average_length: float) -> SparseVector:
        return encode_document(self.tokens, average_length=average_length)


def indexed(title: str, text: str, language: str | None) -> Indexed:
    whole = f"{title}\n{text}"
    return Indexed(whole, tuple(tokenize(whole, language)))


def page_starts(document: ParsedDocument, chunk: Chunk) -> list[list[int]]:
    """[offset, page] of each page that begins inside the chunk, after its first character."""
    starts: list[list[int]] = []
    page = chunk.page
    for block in document.blocks:
        if chunk.start < block.start < chunk.end and block.page is not None and block.page != page:
            page = block.page
            starts.append([block.start, page])
    return starts


def average_length(batch: Sequence[Indexed]) -> float:
    """Mean number of terms, at least 1."""
    return max(1.0, sum(len(one.tokens) for one in batch) / len(batch)) if batch else 1.0
