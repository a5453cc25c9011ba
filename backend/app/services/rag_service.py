"""Search over collections: keyword and dense legs, fused, with what is shown of each hit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from app.agent.core.interfaces import Passage
from app.core.errors import Invalid
from app.db.connection import DriverConnection
from app.db.postgres.repositories.searching import FoundChunk, Searched, SearchedIndex
from app.db.session import Database, Tenant
from app.rag.fusion import best_per_document, reciprocal_rank
from app.rag.providers.vector_store.pgvector_search import PgVectorSearch
from app.rag.sparse import encode_query, query_terms
from app.rag.types import Dense, Embedder, Hit

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
        vector = await self._embedded(query) if query.mode is not SearchMode.KEYWORD else None
        async with self.database.reading(self.tenant) as connection:
            searched = Searched(connection, self.tenant)
            indexes = await self._indexes(searched, query)
            legs = await self._legs(connection, indexes, query, vector)
            ranked = _fuse(legs, by_document=query.group_by is GroupBy.DOCUMENT)
            return await _shown(searched, ranked, query.top_k)

    async def _embedded(self, query: Query) -> Dense:
        """The query's vector. No model is loaded for what cannot be searched."""
        if not self.embedder.ready:
            async with self.database.reading(self.tenant) as connection:
                await self._indexes(Searched(connection, self.tenant), query)
        vector: Dense = (await self.embedder.embed([query.text]))[0]
        return vector

    async def _legs(
        self,
        connection: DriverConnection,
        indexes: Sequence[SearchedIndex],
        query: Query,
        vector: Dense | None,
    ) -> list[list[Hit]]:
        """One list of hits per leg, best first."""
        limit = max(MIN_CANDIDATES, 2 * query.top_k)
        by_vector: list[list[Hit]] = []
        by_words: list[list[Hit]] = []
        for index in indexes:
            store = PgVectorSearch(connection, self.tenant.org_id, index.id)
            if vector is not None:
                by_vector.append(await store.dense(vector, limit=limit))
            if query.mode is not SearchMode.DENSE:
                by_words.append(await _keyword(store, index, query.text, limit))
        wanted = {
            SearchMode.HYBRID: (by_vector, by_words),
            SearchMode.DENSE: (by_vector,),
            SearchMode.KEYWORD: (by_words,),
        }
        return [_merged(leg) for leg in wanted[query.mode]]

    async def _indexes(self, searched: Searched, query: Query) -> Sequence[SearchedIndex]:
        """Those of the query's collections; `Invalid` where another model made one."""
        indexes = await searched.indexes(query.collections)
        for index in indexes:
            if index.embedding_model != self.embedder.name:
                raise Invalid(
                    f"The index of collection {index.collection_id} was made by {index.embedding_model!r}, "
                    f"which is not the embedder in use ({self.embedder.name!r})."
                )
        return indexes


async def _keyword(store: PgVectorSearch, index: SearchedIndex, text: str, limit: int) -> list[Hit]:
    languages = [None if lang == UNKNOWN_LANGUAGE else lang for lang in index.languages]
    counts = query_terms(text, languages)
    frequencies = await store.frequencies(list(counts))
    weights = encode_query(frequencies, document_count=index.chunk_count, counts=counts)
    return await store.keyword(weights, limit=limit)


async def _shown(searched: Searched, ranked: Sequence[tuple[UUID, float]], top_k: int) -> list[Result]:
    """The best `top_k` whose documents are still there: what was deleted a moment ago is still indexed."""
    results: list[Result] = []
    for start in range(0, len(ranked), top_k):
        page = ranked[start : start + top_k]
        found = await searched.chunks([chunk_id for chunk_id, _ in page])
        results += [Result(score, found[chunk_id]) for chunk_id, score in page if chunk_id in found]
        if len(results) >= top_k:
            break
    return results[:top_k]


def _merged(lists: Sequence[list[Hit]]) -> list[Hit]:
    """Hits of several indexes as one list, best first, ties always in the same order."""
    if len(lists) == 1:
        return lists[0]
    return sorted((hit for hits in lists for hit in hits), key=lambda hit: (-hit.score, hit.chunk_id))


def _fuse(legs: Sequence[list[Hit]], *, by_document: bool) -> list[tuple[UUID, float]]:
    """Chunk ids with scores, best first. One leg keeps its own scores; several are fused by rank."""
    if by_document:
        legs = [best_per_document(leg) for leg in legs]
    if len(legs) == 1:
        return [(hit.chunk_id, hit.score) for hit in legs[0]]
    if not by_document:
        scores = reciprocal_rank([[hit.chunk_id for hit in leg] for leg in legs])
        return sorted(scores.items(), key=lambda item: (-item[1], item[0]))
    documents = reciprocal_rank([[hit.document_id for hit in leg] for leg in legs])
    shown: dict[UUID, UUID] = {}
    for leg in reversed(legs):
        shown |= {hit.document_id: hit.chunk_id for hit in leg}
    ranked = sorted(documents.items(), key=lambda item: (-item[1], item[0]))
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
    chunk = result.found
    return Passage(
        chunk_id=chunk.id,
        document_id=chunk.document_id,
        title=chunk.title,
        text=chunk.text,
        start=chunk.start,
        end=chunk.end,
        score=result.score,
        page=chunk.page,
        external_id=chunk.external_id,
        metadata=chunk.metadata,
        page_starts=tuple((start, page) for start, page in chunk.page_starts),
    )
