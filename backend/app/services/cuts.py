"""A version's text, cut into chunks: what of each is stored, and what is indexed.

The functions compute, for seconds where a document is large: they are for threads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from app.core.ids import stable_id
from app.db.base import Json
from app.db.postgres.models.rag import DocumentVersion
from app.rag.indexing import Indexed, indexed, page_starts
from app.rag.pipeline.compiler import compile_ingestion
from app.rag.types import Block, BlockKind, Chunk, Dense, ParsedDocument, SparseVector


@dataclass(frozen=True, slots=True)
class Piece:
    """A chunk under its id, and what of it is indexed."""

    id: UUID
    chunk: Chunk
    text: Indexed


@dataclass(frozen=True, slots=True)
class Cut:
    """A version in pieces, and the average length that they are encoded with.

    `stored` are the chunks that an earlier attempt has given entries, perhaps with another average; `known`
    the vectors that the index has for texts of the first batch.
    """

    pieces: Sequence[Piece]
    language: str
    average: float = 0.0
    stored: frozenset[UUID] = frozenset()
    known: Mapping[bytes, Dense] = field(default_factory=dict)

    @property
    def waiting(self) -> list[Piece]:
        """What has no entry yet."""
        return [piece for piece in self.pieces if piece.id not in self.stored]


def cut(version: DocumentVersion, pipeline: Json, title: str, parsed: ParsedDocument) -> Cut:
    chunks = compile_ingestion(pipeline).chunker.chunk(parsed)
    ids = (stable_id(version.id, version.pipeline_version_id, chunk.ordinal) for chunk in chunks)
    texts = (indexed(title, chunk.text, parsed.language) for chunk in chunks)
    return Cut([*map(Piece, ids, chunks, texts)], parsed.language or "unknown")


def weights(pieces: Sequence[Piece], average: float) -> dict[UUID, SparseVector]:
    return {piece.id: piece.text.sparse(average) for piece in pieces}


def chunk_rows(version: DocumentVersion, parsed: ParsedDocument, pieces: Sequence[Piece]) -> list[Json]:
    return [
        {
            "org_id": version.org_id,
            "id": piece.id,
            "document_id": version.document_id,
            "document_version_id": version.id,
            "pipeline_version_id": version.pipeline_version_id,
            "ordinal": piece.chunk.ordinal,
            "text": piece.chunk.text,
            "start_offset": piece.chunk.start,
            "end_offset": piece.chunk.end,
            "page": piece.chunk.page,
            "heading_path": list(piece.chunk.heading_path),
            "token_count": piece.chunk.token_count,
            "page_starts": page_starts(parsed, piece.chunk),
        }
        for piece in pieces
    ]


def stored_blocks(parsed: ParsedDocument) -> list[list[Any]]:
    return [
        [block.kind.value, block.start, block.end, block.page, list(block.heading_path)]
        for block in parsed.blocks
    ]


def restored(version: DocumentVersion) -> ParsedDocument:
    """What the parsing stage of an earlier attempt stored."""
    return ParsedDocument(
        text=version.text or "",
        blocks=tuple(
            Block(BlockKind(kind), start, end, page, tuple(path))
            for kind, start, end, page, path in version.blocks or ()
        ),
        **(version.parsed_metadata or {}),
    )
