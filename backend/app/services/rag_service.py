"""Search over collections: keyword and dense legs, fused, with what is shown of each hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import Passage
from app.core.errors import Invalid
from app.db.postgres.models.rag import IndexVersion
from app.db.postgres.repositories.rag import Chunks, Collections, FoundChunk, Indexes
from app.db.session import Database, Tenant
from app.rag.fusion import best_per_document, reciprocal_rank
from app.rag.sparse import encode_query, query_terms
from app.rag.types import Embedder, Hit
from app.services.vector_stores import store_in

UNKNOWN_LANGUAGE = "unknown"
MIN_CANDIDATES = 100


class SearchMode(StrEnum):
    HYBRID = "hybrid"
    DENSE = "dense"
    KEYWORD = "keyword"


class GroupBy(StrEnum):
    CHUNK = "chunk"
    DOCUMENT = "document"


@dataclass(frozen=True, slots=True)
class Query:
    """`top_k` results, chunks or the best chunk of each document."""

    text: str
    collections: Sequence[str]
    mode: SearchMode = SearchMode.HYBRID
    top_k: int = 10
    group_by: GroupBy = GroupBy.CHUNK


@dataclass(frozen=True, slots=True)
class Result:
    score: float
    found: FoundChunk


@dataclass(slots=True)
class RagService:
    """Opens short transactions of its own; never holds one while a model works."""

    database: Database
    tenant: Tenant
    embedder: Embedder

    async def search(self, query: Query) -> list[Result]:
        """Best first; `NotFound` for an unknown collection. Scores compare within one answer only."""
        dense_wanted = query.mode is not SearchMode.KEYWORD
        vector = (await self.embedder.embed([query.text]))[0] if dense_wanted else None
        limit = max(MIN_CANDIDATES, 2 * query.top_k)
        async with self.database.unit_of_work(self.tenant) as session:
            indexes = await self._indexes(session, query.collections)
            legs: list[list[Hit]] = []
            if vector is not None:
                stores = [store_in(session, self.tenant, index.id) for index in indexes]
                legs.append(_ranked([hit for s in stores for hit in await s.dense(vector, limit=limit)]))
            if query.mode is not SearchMode.DENSE:
                found_by_words = [await self._keyword(session, i, query.text, limit) for i in indexes]
                legs.append(_ranked([hit for hits in found_by_words for hit in hits]))
            # Some more than asked for: what was deleted a moment ago is still in the index.
            ranked = _fuse(legs, by_document=query.group_by is GroupBy.DOCUMENT)[: 2 * query.top_k]
            found = await Chunks(session, self.tenant).found([chunk_id for chunk_id, _ in ranked])
        results = [Result(score, found[chunk_id]) for chunk_id, score in ranked if chunk_id in found]
        return results[: query.top_k]

    async def _indexes(self, session: AsyncSession, references: Sequence[str]) -> list[IndexVersion]:
        collections = Collections(session, self.tenant)
        ids = {(await collections.find(reference)).id for reference in references}
        indexes = await Indexes(session, self.tenant).live(sorted(ids))
        for index in indexes:
            if index.embedding_model != self.embedder.name:
                raise Invalid(
                    f"The index of collection {index.collection_id} was made by {index.embedding_model!r}, "
                    f"which is not the embedder in use ({self.embedder.name!r})."
                )
        return indexes

    async def _keyword(self, session: AsyncSession, index: IndexVersion, text: str, limit: int) -> list[Hit]:
        languages = [None if lang == UNKNOWN_LANGUAGE else lang for lang in index.languages]
        counts = query_terms(text, languages)
        store = store_in(session, self.tenant, index.id)
        frequencies = await store.frequencies(sorted(counts))
        weights = encode_query(frequencies, document_count=index.chunk_count, counts=counts)
        return await store.keyword(weights, limit=limit)


def _ranked(hits: list[Hit]) -> list[Hit]:
    """Hits of several indexes as one list, best first, ties always in the same order."""
    return sorted(hits, key=lambda hit: (-hit.score, str(hit.chunk_id)))


def _fuse(legs: Sequence[list[Hit]], *, by_document: bool) -> list[tuple[UUID, float]]:
    """Chunk ids with scores, best first. One leg keeps its own scores; several are fused by rank."""
    if by_document:
        legs = [best_per_document(leg) for leg in legs]
    if len(legs) == 1:
        return [(hit.chunk_id, hit.score) for hit in legs[0]]
    if not by_document:
        scores = reciprocal_rank([[hit.chunk_id for hit in leg] for leg in legs])
        return sorted(scores.items(), key=lambda item: (-item[1], str(item[0])))
    documents = reciprocal_rank([[hit.document_id for hit in leg] for leg in legs])
    shown: dict[UUID, UUID] = {}
    for leg in reversed(legs):
        shown |= {hit.document_id: hit.chunk_id for hit in leg}
    ranked = sorted(documents.items(), key=lambda item: (-item[1], str(item[0])))
    return [(shown[document], score) for document, score in ranked]


@dataclass(slots=True)
class CollectionRetriever:
    """What an agent's `retrieve` node searches with: the version's bindings, resolved to collection ids."""

    rag: RagService

    async def search(self, collection: str, query: str, *, top_k: int, mode: str) -> list[Passage]:
        results = await self.rag.search(
            Query(text=query, collections=[collection], mode=SearchMode(mode), top_k=top_k)
        )
        return [_passage(result) for result in results]


def _passage(result: Result) -> Passage:
    chunk = result.found.chunk
    return Passage(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        title=result.found.title,
        text=chunk.text,
        start=chunk.start_offset,
        end=chunk.end_offset,
        score=result.score,
        page=chunk.page,
        external_id=result.found.external_id,
        metadata=result.found.metadata,
        page_starts=tuple((start, page) for start, page in chunk.page_starts),
    )
