"""The store in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.rag.providers.vector_store.pgvector import PgVector
from app.rag.providers.vector_store.pgvector_search import PgVectorSearch
from app.rag.types import Hit, SparseVector
from app.services.collection_service import CollectionService
from tests.rag.vector_store.vector_store_conformance import VectorStoreConformance
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


@dataclass(frozen=True, slots=True)
class PgIndex:
    """An index of a collection; each call is a transaction."""

    world: World
    id: UUID

    @property
    def store(self) -> PgVector:
        return PgVector(self._connected, self.world.tenant.org_id, self.id)

    async def dense(self, vector: Any) -> list[Hit]:
        async with self._searching() as search:
            return await search.dense(vector, limit=10)

    async def keyword(self, query: SparseVector) -> list[Hit]:
        async with self._searching() as search:
            return await search.keyword(query, limit=10)

    async def frequencies(self, terms: Sequence[int]) -> dict[int, int]:
        async with self._searching() as search:
            return await search.frequencies(terms)

    async def payload(self, chunk_id: UUID) -> dict[str, Any]:
        query = text("SELECT payload FROM vector_entries WHERE index_id = :index AND chunk_id = :chunk")
        async with self._connected() as connection:
            found = await connection.execute(query, {"index": self.id, "chunk": chunk_id})
            return dict(found.scalar_one())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection]:
        async with self.world.work() as session:
            yield await session.connection()

    @asynccontextmanager
    async def _searching(self) -> AsyncIterator[PgVectorSearch]:
        async with self.world.resources.database.reading(self.world.tenant) as connection:
            yield PgVectorSearch(connection, self.world.tenant.org_id, self.id)


@pytest_asyncio.fixture(loop_scope="session")
async def index(world: World) -> PgIndex:
    async with world.work() as session:
        collection = await CollectionService(session, world.tenant, world.embedder).get(world.collection)
        return PgIndex(world, collection.index.id)


class TestPgVector(VectorStoreConformance):
    pass
