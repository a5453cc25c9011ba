"""The vector store of an index version, in the transaction of the caller."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.session import Tenant
from app.rag.providers.vector_store.pgvector import PgVector
from app.rag.types import VectorStore


def store_in(session: AsyncSession, tenant: Tenant, index_id: UUID) -> VectorStore:
    """Entries of one index, read and written in `session`'s transaction."""

    @asynccontextmanager
    async def connect() -> AsyncIterator[AsyncConnection]:
        yield await session.connection()

    return PgVector(connect, tenant.org_id, index_id)
