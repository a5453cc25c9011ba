"""What a search reads of collections and documents: few columns and round trips, on the driver itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.core.errors import NotFound
from app.core.slugs import as_uuid
from app.db.base import Json
from app.db.connection import DriverConnection
from app.db.session import Tenant

_INDEXES = """
SELECT c.id, c.slug, i.id, i.embedding_model, i.chunk_count, i.languages
FROM collections c
LEFT JOIN index_versions i ON i.org_id = c.org_id AND i.collection_id = c.id AND i.status = 'live'
WHERE c.org_id = $1 AND c.project_id = $2 AND c.deleted_at IS NULL AND (c.slug = ANY($3) OR c.id = ANY($4))
ORDER BY c.id
"""
_FOUND = """
SELECT c.id, c.document_id, d.external_id, d.title, c.text, c.start_offset, c.end_offset, c.page,
    c.page_starts, d.metadata
FROM chunks c JOIN documents d ON d.org_id = c.org_id AND d.id = c.document_id
WHERE c.org_id = $1 AND c.id = ANY($2) AND d.project_id = $3 AND d.deleted_at IS NULL
"""


@dataclass(frozen=True, slots=True)
class SearchedIndex:
    """The live index of a collection. `languages` are those of its documents; `unknown` is one of them."""

    collection_id: UUID
    id: UUID
    embedding_model: str
    chunk_count: int
    languages: list[str]


@dataclass(frozen=True, slots=True)
class FoundChunk:
    """A chunk as a searcher sees it, with what is to know of its document."""

    id: UUID
    document_id: UUID
    external_id: str
    title: str
    text: str
    start: int
    end: int
    page: int | None
    page_starts: list[Any]
    metadata: Json


class Searched:
    """Collections and chunks of one project, in the transaction of `connection`."""

    def __init__(self, connection: DriverConnection, tenant: Tenant) -> None:
        self._connection = connection
        self._tenant = tenant

    async def indexes(self, references: Sequence[str]) -> list[SearchedIndex]:
        """The live indexes of the collections named by id or slug; `NotFound` where one is not there."""
        ids = {reference: as_uuid(reference) for reference in references}
        slugs = [reference for reference, row_id in ids.items() if row_id is None]
        wanted = [row_id for row_id in ids.values() if row_id is not None]
        tenant = self._tenant
        rows = await self._connection.fetch(_INDEXES, tenant.org_id, tenant.project, slugs, wanted)
        there = {row[0] for row in rows} | {row[1] for row in rows}
        for reference, row_id in ids.items():
            if (row_id or reference) not in there:
                raise NotFound(f"There is no collection {reference!r} here.")
        return [SearchedIndex(row[0], row[2], row[3], row[4], row[5]) for row in rows if row[2] is not None]

    async def chunks(self, chunk_ids: Sequence[UUID]) -> dict[UUID, FoundChunk]:
        """What search shows of these chunks; those of deleted documents are missing."""
        rows = await self._connection.fetch(
            _FOUND, self._tenant.org_id, list(chunk_ids), self._tenant.project
        )
        return {row[0]: FoundChunk(*row) for row in rows}
