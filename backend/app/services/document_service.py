"""Documents as their owners see them: listed, read back, deleted everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.blobs import Blobs
from app.core.constants import INGEST_QUEUE
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.db.postgres.models.files import File
from app.db.postgres.models.jobs import Job, WorkItem, WorkKind
from app.db.postgres.models.rag import ChunkRow, Document, DocumentStatus
from app.db.postgres.repositories.rag import Chunks, Collections, Documents, Files, Versions
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Tenant, wake_after


@dataclass(frozen=True, slots=True)
class DocumentText:
    """The searched version's text (None before one is ready) and its chunks."""

    document: Document
    text: str | None
    chunks: list[ChunkRow]


@dataclass(slots=True)
class DocumentService:
    """Works in the caller's transaction."""

    session: AsyncSession
    tenant: Tenant
    blobs: Blobs

    async def get(self, document_id: UUID) -> Document:
        return await Documents(self.session, self.tenant).get(document_id)

    async def page(
        self, collection: str, request: PageRequest, *, status: DocumentStatus | None = None
    ) -> Page[Document]:
        found = await Collections(self.session, self.tenant).find(collection)
        documents = Documents(self.session, self.tenant)
        return await documents.page(request, documents.of(found.id, status))

    async def text(self, document_id: UUID) -> DocumentText:
        document = await self.get(document_id)
        if document.version_id is None:
            return DocumentText(document, None, [])
        version = await Versions(self.session, self.tenant).whole(document.version_id)
        chunks = await Chunks(self.session, self.tenant).of_version(version.id)
        return DocumentText(document, version.text, chunks)

    async def original(self, document_id: UUID) -> File:
        """The file of the newest version."""
        document = await self.get(document_id)
        version = await Versions(self.session, self.tenant).get(document.newest_version_id)
        return await Files(self.session, self.tenant).get(version.file_id)

    def content(self, file: File) -> AsyncIterator[bytes]:
        return self.blobs.read(file.blob_key)

    async def delete(self, document_id: UUID) -> UUID:
        """Hides the document at once, stops work on it, and answers the job that erases it everywhere."""
        document = await Documents(self.session, self.tenant).get(document_id, lock=True)
        document.deleted_at = datetime.now(UTC)
        items = WorkItems(self.session, self.tenant)
        await items.cancel_open([document.id])
        org, project = self.tenant.org_id, self.tenant.project
        job = Job(
            org_id=org, id=new_id(), project_id=project, kind=WorkKind.ERASE_DOCUMENT, subject_id=document.id
        )
        await Jobs(self.session, self.tenant).add(job)
        await items.add(
            WorkItem(
                org_id=org,
                id=new_id(),
                project_id=project,
                queue=INGEST_QUEUE,
                kind=WorkKind.ERASE_DOCUMENT,
                job_id=job.id,
                subject_id=document.id,
            )
        )
        wake_after(self.session, INGEST_QUEUE)
        failpoint("delete.marking")
        return job.id
