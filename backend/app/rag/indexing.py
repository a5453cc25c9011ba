"""What of a chunk goes into the index: the text that is embedded, its terms, its identity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from app.rag.sparse import encode_document, tokenize
from app.rag.types import SparseVector


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


def average_length(batch: Sequence[Indexed]) -> float:
    """Mean number of terms, at least 1."""
    return max(1.0, sum(len(one.tokens) for one in batch) / len(batch)) if batch else 1.0
