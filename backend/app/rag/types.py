"""Types that the rooms of RAG hand to one another. Offsets are Unicode code points into the stored text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

Dense = NDArray[np.float32]


class BlockKind(StrEnum):
    HEADING = "heading"
    PARAGRAPH = "paragraph"
    LIST = "list"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Block:
    """A piece of structure over `ParsedDocument.text[start:end]`; `page` counts from 1."""

    kind: BlockKind
    start: int
    end: int
    page: int | None = None
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A file as text. Blocks are in order and do not overlap; `page_count` is None for unpaged formats."""

    text: str
    blocks: tuple[Block, ...] = ()
    title: str | None = None
    page_count: int | None = None
    language: str | None = None
    media_type: str = "text/plain"
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Chunk:
    """`text == document.text[start:end]` exactly; `page` is the page of `start`; `ordinal` from 0."""

    ordinal: int
    text: str
    start: int
    end: int
    token_count: int
    page: int | None = None
    heading_path: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SparseVector:
    """Term ids ascending, 1 ≤ id < 10^9, and their weights."""

    indices: tuple[int, ...]
    values: tuple[float, ...]


class Embedder(Protocol):
    """Turns texts into unit vectors of `dimensions` float32. Never blocks the event loop."""

    @property
    def name(self) -> str: ...

    @property
    def dimensions(self) -> int: ...

    @property
    def ready(self) -> bool:
        """Whether the next text is embedded at once; else a model is loaded for it, which takes seconds."""
        ...

    async def embed(self, texts: Sequence[str]) -> Dense:
        """Shape (len(texts), dimensions), in order."""
        ...


@dataclass(frozen=True, slots=True)
class VectorEntry:
    """One chunk in a vector store: vectors, ids and filter payload; never the text."""

    chunk_id: UUID
    document_id: UUID
    document_version_id: UUID
    text_hash: bytes
    term_count: int
    dense: Dense
    sparse: SparseVector
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Totals:
    """Chunks, and their terms added up: what BM25 needs as N and N × average length."""

    chunks: int
    terms: int

    def __add__(self, other: Totals) -> Totals:
        return Totals(self.chunks + other.chunks, self.terms + other.terms)

    def __sub__(self, other: Totals) -> Totals:
        return Totals(self.chunks - other.chunks, self.terms - other.terms)


class VectorStore(Protocol):
    """One organization's entries in one index version, written. A search sees published versions only."""

    async def upsert(self, new: Sequence[VectorEntry]) -> None:
        """Stores entries; one of the same chunk is replaced, and searched or not as it was.

        Raises `ValueError` where that would change the terms of a chunk that is searched: document
        frequencies count them.
        """
        ...

    async def stored(self, version_id: UUID) -> set[UUID]:
        """Chunk ids of a version that have an entry."""
        ...

    async def known(self, hashes: Sequence[bytes]) -> dict[bytes, Dense]:
        """Vectors of texts that this index has embedded before, by text hash."""
        ...

    async def relabel(self, document_id: UUID, payload: Mapping[str, Any]) -> None:
        """Replaces what filters see of a document."""
        ...

    async def publish(self, document_id: UUID, version_id: UUID, *, payload: Mapping[str, Any]) -> Totals:
        """Shows a version's entries and removes the document's other versions; answers what changed.

        `payload` is what filters are to see: it may have changed since the entries were stored.
        """
        ...

    async def hide(self, document_id: UUID) -> Totals:
        """Takes a document out of every search and its words out of the statistics; answers the change."""
        ...

    async def remove(self, document_id: UUID) -> int:
        """Removes every entry of a hidden document; answers how many are left, which must be 0."""
        ...

    async def reweigh(self, sparse: Mapping[UUID, SparseVector]) -> None:
        """Replaces the document weights of chunks; their terms stay what they were."""
        ...


@dataclass(frozen=True, slots=True)
class Hit:
    chunk_id: UUID
    document_id: UUID
    score: float
