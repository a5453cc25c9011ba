"""Searching the pgvector store: exact dense and BM25 legs, and document frequencies, on asyncpg itself.

These statements are what a search costs, so they are written out: the distance of a chunk is computed
once, for its order as for its score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from app.rag.providers.vector_store.pgvector_tables import SPARSE_DIMENSIONS
from app.rag.types import Dense, Hit, SparseVector

if TYPE_CHECKING:
    from asyncpg import Record

FREQUENCIES = """
SELECT term, documents FROM vector_terms
WHERE org_id = $1 AND index_id = $2 AND term = ANY($3) AND documents > 0
"""
# The cast is a subquery: where PostgreSQL keeps one plan for all calls, it would else cast for every row.
DENSE = """
SELECT chunk_id, document_id, -distance FROM (
    SELECT chunk_id, document_id, dense <#> (SELECT $3::float4[]::vector) AS distance
    FROM vector_entries WHERE org_id = $1 AND index_id = $2 AND visible
    ORDER BY distance, chunk_id LIMIT $4
) AS nearest
"""
# Weights are positive: the product is 0 where no term is shared. Comparing arrays of terms takes far longer.
KEYWORD = """
SELECT chunk_id, document_id, -distance FROM (
    SELECT chunk_id, document_id, sparse <#> $3::sparsevec AS distance
    FROM vector_entries WHERE org_id = $1 AND index_id = $2 AND visible
    ORDER BY distance, chunk_id LIMIT $4
) AS nearest WHERE distance < 0
"""


class Connection(Protocol):
    """What is needed of asyncpg's."""

    async def fetch(self, query: str, *args: object) -> list[Record]: ...


@dataclass(frozen=True, slots=True)
class PgVectorSearch:
    """One organization's visible entries in one index version. Scores are inner products, best high."""

    connection: Connection
    org_id: UUID
    index_id: UUID

    async def dense(self, vector: Dense, *, limit: int) -> list[Hit]:
        """The nearest chunks by inner product, exactly; best first, ties by id."""
        rows = await self.connection.fetch(DENSE, self.org_id, self.index_id, vector.tolist(), limit)
        return [Hit(*row) for row in rows]

    async def keyword(self, query: SparseVector, *, limit: int) -> list[Hit]:
        """The best chunks by BM25 among those that share a term with `query`, exactly; ties by id."""
        if not query.indices:
            return []
        rows = await self.connection.fetch(KEYWORD, self.org_id, self.index_id, sparse_text(query), limit)
        return [Hit(*row) for row in rows]

    async def frequencies(self, wanted: Sequence[int]) -> dict[int, int]:
        """In how many visible chunks each term occurs; terms that occur nowhere are missing."""
        rows = await self.connection.fetch(FREQUENCIES, self.org_id, self.index_id, wanted)
        return {term: count for term, count in rows}


def sparse_text(vector: SparseVector) -> str:
    """`vector` in pgvector's notation, whose dimensions count from 1."""
    weights = ",".join(
        [f"{term}:{weight}" for term, weight in zip(vector.indices, vector.values, strict=True)]
    )
    return f"{{{weights}}}/{SPARSE_DIMENSIONS}"
