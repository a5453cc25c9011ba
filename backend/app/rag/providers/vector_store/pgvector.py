"""Vectors in PostgreSQL, written: entries in one table, document frequencies in another.

Writes go through a connection whose transaction the caller owns, so that an index change and the
document's state change are one. `pgvector_search` reads them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import numpy as np
from sqlalchemy import Select, bindparam, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.rag.providers.vector_store.pgvector_search import sparse_text
from app.rag.providers.vector_store.pgvector_tables import entries, terms
from app.rag.types import Dense, SparseVector, Totals, VectorEntry

Connect = Callable[[], AbstractAsyncContextManager[AsyncConnection]]

_BATCH = 200
_NOT_NULL = "23502"
# The driver sends numbers in binary; pgvector's own type would print 384 of them as text, 5 times as costly.
# A term count of NULL is refused: terms of what is searched are counted, and stay what they were counted as.
_UPSERT = """
INSERT INTO vector_entries AS stored (org_id, index_id, chunk_id, document_id, document_version_id, visible,
    text_hash, term_count, terms, dense, sparse, payload)
VALUES ($1, $2, $3, $4, $5, false, $6, $7, $8, $9::float4[]::vector, $10::sparsevec, $11)
ON CONFLICT (org_id, index_id, chunk_id) DO UPDATE SET
    document_id = excluded.document_id, document_version_id = excluded.document_version_id,
    text_hash = excluded.text_hash, terms = excluded.terms, dense = excluded.dense, sparse = excluded.sparse,
    payload = excluded.payload,
    term_count = CASE WHEN NOT stored.visible OR (stored.terms, stored.term_count)
        = (excluded.terms, excluded.term_count) THEN excluded.term_count END
"""
_REWEIGH = """
UPDATE vector_entries SET sparse = $4::sparsevec WHERE org_id = $1 AND index_id = $2 AND chunk_id = $3
"""
# Locks terms in ascending order, so that two documents sharing words never wait for each other in a ring.
_COUNT_TERMS = text(
    """
    INSERT INTO vector_terms AS t (org_id, index_id, term, documents)
    SELECT org_id, index_id, term, :sign * count(*) FROM vector_entries, unnest(terms) AS term
    WHERE org_id = :org AND index_id = :index AND document_version_id = :version AND visible = :visible
    GROUP BY org_id, index_id, term ORDER BY term
    ON CONFLICT (org_id, index_id, term) DO UPDATE SET documents = t.documents + excluded.documents
    """
)
_OTHER_VERSIONS = text(
    """
    SELECT DISTINCT document_version_id FROM vector_entries
    WHERE org_id = :org AND index_id = :index AND document_id = :document AND document_version_id <> :version
    """
)
# Both parts see the entries as they were before the statement.
_SHOW = text(
    """
    WITH shown AS (
        UPDATE vector_entries SET visible = true, payload = :payload
        WHERE org_id = :org AND index_id = :index AND document_version_id = :version
    )
    SELECT count(*), coalesce(sum(term_count), 0) FROM vector_entries
    WHERE org_id = :org AND index_id = :index AND document_version_id = :version AND NOT visible
    """
).bindparams(bindparam("payload", type_=entries.c.payload.type))


@dataclass(frozen=True, slots=True)
class PgVector:
    """Implements `VectorStore`."""

    connect: Connect
    org_id: UUID
    index_id: UUID

    async def upsert(self, new: Sequence[VectorEntry]) -> None:
        async with self.connect() as connection:
            for start in range(0, len(new), _BATCH):
                rows = [self._row(entry) for entry in new[start : start + _BATCH]]
                try:
                    await connection.exec_driver_sql(_UPSERT, rows)
                except IntegrityError as error:
                    if getattr(error.orig, "sqlstate", None) != _NOT_NULL:
                        raise
                    raise ValueError("a chunk that is searched keeps its terms") from error

    async def stored(self, version_id: UUID) -> set[UUID]:
        statement = self._mine(entries.c.chunk_id).where(entries.c.document_version_id == version_id)
        async with self.connect() as connection:
            return set((await connection.execute(statement)).scalars())

    async def known(self, hashes: Sequence[bytes]) -> dict[bytes, Dense]:
        statement = (
            self._mine(entries.c.text_hash, entries.c.dense)
            .where(entries.c.text_hash.in_(hashes))
            .ext(distinct_on(entries.c.text_hash))
        )
        async with self.connect() as connection:
            rows = await connection.execute(statement)
            return {digest: np.asarray(dense, dtype=np.float32) for digest, dense in rows}

    async def relabel(self, document_id: UUID, payload: Mapping[str, Any]) -> None:
        mine = entries.c.document_id == document_id
        async with self.connect() as connection:
            await connection.execute(
                update(entries).where(*self._scope(), mine).values(payload=dict(payload))
            )

    async def publish(self, document_id: UUID, version_id: UUID, *, payload: Mapping[str, Any]) -> Totals:
        mine = {"org": self.org_id, "index": self.index_id, "version": version_id}
        async with self.connect() as connection:
            others = await connection.execute(_OTHER_VERSIONS, mine | {"document": document_id})
            change = Totals(0, 0)
            for other in others.scalars().all():
                change -= await self._drop_version(connection, other)
            await self._count_terms(connection, version_id, sign=1, visible=False)
            shown = await connection.execute(_SHOW, mine | {"payload": dict(payload)})
            return change + Totals(*shown.one())

    async def hide(self, document_id: UUID) -> Totals:
        async with self.connect() as connection:
            mine = (*self._scope(), entries.c.document_id == document_id, entries.c.visible)
            gone = await self._totals(connection, entries.c.document_id == document_id, entries.c.visible)
            shown = await connection.execute(select(entries.c.document_version_id).where(*mine).distinct())
            for version in shown.scalars().all():
                await self._count_terms(connection, version, sign=-1, visible=True)
            await connection.execute(update(entries).where(*mine).values(visible=False))
            return Totals(0, 0) - gone

    async def remove(self, document_id: UUID) -> int:
        mine = entries.c.document_id == document_id
        async with self.connect() as connection:
            versions = await connection.execute(
                self._mine(entries.c.document_version_id).where(mine).distinct()
            )
            for version in versions.scalars().all():
                await self._drop_version(connection, version)
            left = await connection.execute(self._mine(func.count()).where(mine))
            return int(left.scalar_one())

    async def reweigh(self, sparse: Mapping[UUID, SparseVector]) -> None:
        rows = [(self.org_id, self.index_id, one, sparse_text(sparse[one])) for one in sorted(sparse)]
        if rows:
            async with self.connect() as connection:
                await connection.exec_driver_sql(_REWEIGH, rows)

    async def _totals(self, connection: AsyncConnection, *where: Any) -> Totals:
        columns = (func.count(), func.coalesce(func.sum(entries.c.term_count), 0))
        return Totals(*(await connection.execute(self._mine(*columns).where(*where))).one())

    async def _drop_version(self, connection: AsyncConnection, version_id: UUID) -> Totals:
        """Deletes a version's entries; answers what of them was visible."""
        gone = await self._totals(connection, entries.c.document_version_id == version_id, entries.c.visible)
        await self._count_terms(connection, version_id, sign=-1, visible=True)
        its_terms = self._mine(func.unnest(entries.c.terms)).where(
            entries.c.document_version_id == version_id
        )
        await connection.execute(
            delete(terms).where(
                terms.c.org_id == self.org_id,
                terms.c.index_id == self.index_id,
                terms.c.documents <= 0,
                terms.c.term.in_(its_terms),
            )
        )
        await connection.execute(
            delete(entries).where(*self._scope(), entries.c.document_version_id == version_id)
        )
        return gone

    async def _count_terms(
        self, connection: AsyncConnection, version_id: UUID, *, sign: int, visible: bool
    ) -> None:
        await connection.execute(
            _COUNT_TERMS,
            {
                "org": self.org_id,
                "index": self.index_id,
                "version": version_id,
                "sign": sign,
                "visible": visible,
            },
        )

    def _scope(self) -> tuple[Any, Any]:
        return entries.c.org_id == self.org_id, entries.c.index_id == self.index_id

    def _mine(self, *columns: Any) -> Select[Any]:
        return select(*columns).where(*self._scope())

    def _row(self, entry: VectorEntry) -> tuple[Any, ...]:
        return (
            self.org_id,
            self.index_id,
            entry.chunk_id,
            entry.document_id,
            entry.document_version_id,
            entry.text_hash,
            entry.term_count,
            entry.sparse.indices,
            entry.dense.tolist(),
            sparse_text(entry.sparse),
            json.dumps(entry.payload),
        )
