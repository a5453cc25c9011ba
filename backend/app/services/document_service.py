"""Documents as their owners see them: listed, read back, described anew, deleted everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.blobs import Blobs
from app.core.errors import BlobMissing
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.merge_patch import merge_patch
from app.core.paging import Page, PageRequest
from app.db.base import Json
from app.db.postgres.models.files import File
from app.db.postgres.models.jobs import JobKind, WorkKind
from app.db.postgres.models.rag import ChunkRow, Document, DocumentStatus, DocumentVersion
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.rag import Chunks, Collections, Documents, Files, Indexes, Versions
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Tenant
from app.services.vector_stores import store_in


@dataclass(frozen=True, slots=True)
class DocumentText:
    """The searched version's text (None before one is ready) and its chunks."""

    document: Document
    text: str | None
    chunks: list[ChunkRow]


@dataclass(frozen=True, slots=True)
class DocumentFilters:
    """All that are given must hold. `q` is looked for in titles and names."""

    statuses: Sequence[DocumentStatus] = ()
    external_id: str | None = None
    q: str | None = None


@dataclass(slots=True)
class DocumentService:
    """Works in the caller's transaction."""

    session: AsyncSession
    tenant: Tenant
    blobs: Blobs

    async def get(self, document_id: UUID) -> Document:
        return await Documents(self.session, self.tenant).get(document_id)

    async def page(
        self, collection: str, request: PageRequest, filters: DocumentFilters | None = None
    ) -> Page[Document]:
        """Without metadata."""
        found = await Collections(self.session, self.tenant).find(collection)
        documents = Documents(self.session, self.tenant)
        wanted = filters or DocumentFilters()
        statement = documents.of(found.id)
        if wanted.statuses:
            statement = statement.where(Document.status.in_(wanted.statuses))
        if wanted.external_id is not None:
            statement = statement.where(Document.external_id == wanted.external_id)
        if wanted.q is not None:
            statement = statement.where(contains(wanted.q, Document.title, Document.name))
        return await documents.page(request, statement)

    async def update(
        self, document_id: UUID, changes: Json, *, revisions: Collection[int] | None = None
    ) -> tuple[Document, UUID | None]:
        """Changes `title`, and merges `metadata` (None empties it); only if at one of `revisions`.

        Metadata is seen by searches and filters from now on; nothing is embedded again for it. The title
        is a part of what is embedded, so a new one makes a new version of the same bytes; until that is
        ready, the old one is searched. The second of the answer is the job that embeds it.
        """
        documents = Documents(self.session, self.tenant)
        document = await documents.get(document_id, lock=True)
        documents.demand_revision(document, revisions)
        document.revision += 1
        document.updated_at = func.now()
        if "metadata" in changes:
            document.doc_metadata = merge_patch(document.doc_metadata, changes["metadata"]) or {}
            for index in await Indexes(self.session, self.tenant).of(document.collection_id, lock=True):
                store = store_in(self.session, self.tenant, index.id)
                await store.relabel(document.id, document.doc_metadata)
        job_id = None
        if changes.get("title", document.title) != document.title:
            document.title = changes["title"]
            job_id = await self._ingest_again(document)
        await self.session.flush()
        await self.session.refresh(document)
        return document, job_id

    async def _ingest_again(self, document: Document) -> UUID:
        """Queues a new version with the newest one's bytes and, if it has it, its text."""
        versions = Versions(self.session, self.tenant)
        newest = await versions.whole(document.newest_version_id)
        parsed = {name: getattr(newest, name) for name in ("text", "blocks", "parsed_metadata")}
        version = DocumentVersion(
            org_id=self.tenant.org_id,
            id=new_id(),
            document_id=document.id,
            file_id=newest.file_id,
            ordinal=newest.ordinal + 1,
            content_hash=newest.content_hash,
            pipeline_version_id=newest.pipeline_version_id,
            title=document.title,
            **(parsed if newest.text is not None else {}),
        )
        await versions.add(version)
        document.newest_version_id = version.id
        document.status, document.error = DocumentStatus.ACCEPTED, None
        items = WorkItems(self.session, self.tenant)
        payload = await items.newest_payload(document.id, WorkKind.INGEST)
        await items.cancel_open([document.id])
        job = await Jobs(self.session, self.tenant).open(JobKind.INGESTION, document.collection_id)
        payload |= {"version_id": str(version.id), "title_given": True}
        sizes = {document.id: document.size_bytes}
        await items.queue_all(WorkKind.INGEST, {document.id: payload}, sizes=sizes, job_id=job.id)
        return job.id

    async def text(self, document_id: UUID) -> DocumentText:
        document = await self.get(document_id)
        if document.version_id is None:
            return DocumentText(document, None, [])
        version = await Versions(self.session, self.tenant).whole(document.version_id)
        chunks = await Chunks(self.session, self.tenant).of_version(version.id)
        return DocumentText(document, version.text, chunks)

    async def original(self, document_id: UUID) -> File:
        """The file of the newest version; `BlobMissing` where its bytes are lost."""
        document = await self.get(document_id)
        version = await Versions(self.session, self.tenant).get(document.newest_version_id)
        file = await Files(self.session, self.tenant).get(version.file_id)
        if await self.blobs.size(file.blob_key) != file.size_bytes:
            raise BlobMissing(
                f"The bytes of document {str(document_id)!r} (file {str(file.id)!r}) are not in the blob "
                f"storage any more: upload {file.name!r} again as {document.external_id!r}."
            )
        return file

    def content(self, file: File) -> AsyncIterator[bytes]:
        return self.blobs.read(file.blob_key)

    async def delete(self, document_id: UUID, *, revisions: Collection[int] | None = None) -> UUID:
        """Hides the document at once, stops work on it, and answers the job that erases it everywhere.

        Only if at one of `revisions`.
        """
        documents = Documents(self.session, self.tenant)
        document = await documents.get(document_id, lock=True)
        documents.demand_revision(document, revisions)
        document.deleted_at = datetime.now(UTC)
        items = WorkItems(self.session, self.tenant)
        await items.cancel_open([document.id])
        job = await Jobs(self.session, self.tenant).open(JobKind.ERASE_DOCUMENT, document.id)
        await items.queue(WorkKind.ERASE_DOCUMENT, document.id, job_id=job.id)
        failpoint("delete.marking")
        return job.id
