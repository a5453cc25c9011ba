"""Intake: documents handed in are stored, registered and queued; after the answer none can be lost."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from uuid import UUID

import structlog

from app.core.blobs import Blobs, StoredBlob
from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError, TooLarge
from app.core.ids import new_id
from app.db.base import Json
from app.db.postgres.models.files import File
from app.db.postgres.models.jobs import Job, WorkItem, WorkKind
from app.db.postgres.models.rag import Collection, Document, DocumentStatus, DocumentVersion
from app.db.postgres.repositories.rag import Collections, Documents, Files, Versions
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Database, Tenant, wake_after

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Incoming:
    """One file or text that somebody hands in. `external_id` is their name for it, by default `name`.

    `exactly_text` keeps a text from being taken for HTML or Markdown by its look.
    """

    name: str
    content: AsyncIterable[bytes]
    media_type: str | None = None
    external_id: str | None = None
    title: str | None = None
    metadata: Json = field(default_factory=dict)
    exactly_text: bool = False

    @property
    def key(self) -> str:
        return self.external_id or self.name


class Verdict(StrEnum):
    ACCEPTED = "accepted"
    UNCHANGED = "unchanged"
    REJECTED = "rejected"


@dataclass(slots=True)
class Taken:
    """What became of one incoming document. `error` is `{code, message}` of a rejected one."""

    incoming: Incoming
    status: Verdict = Verdict.ACCEPTED
    document_id: UUID | None = None
    error: Json | None = None
    blob: StoredBlob | None = None
    file_id: UUID = field(default_factory=new_id)

    def reject(self, code: str, message: str) -> Taken:
        self.status, self.error = Verdict.REJECTED, {"code": code, "message": message}
        return self


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one request, inserted table by table."""

    documents: list[Document] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    versions: list[DocumentVersion] = field(default_factory=list)
    items: list[WorkItem] = field(default_factory=list)
    replaced: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Accepted:
    job_id: UUID
    items: Sequence[Taken]


def blob_key(tenant: Tenant, file_id: UUID) -> str:
    return f"{tenant.org_id}/{tenant.project}/files/{file_id}"


@dataclass(slots=True)
class IntakeService:
    """Opens its own transactions: bytes are stored before the rows that speak of them."""

    database: Database
    tenant: Tenant
    blobs: Blobs
    max_document_bytes: int

    async def accept(self, collection: str, incoming: AsyncIterable[Incoming]) -> Accepted:
        """Each comes back `accepted`, `unchanged` (this content is here or on its way) or `rejected`."""
        async with self.database.unit_of_work(self.tenant) as session:
            target = await Collections(session, self.tenant).find(collection)
        taken: list[Taken] = []
        try:
            async for one in incoming:
                taken.append(await self._store(one, {other.incoming.key for other in taken}))
        except BaseException:
            await self._discard(taken)
            raise
        try:
            job_id = await self._register(target.id, taken)
        except AppError:  # rolled back; of anything else it is not known, so the bytes stay
            await self._discard(taken)
            raise
        await self._discard([one for one in taken if one.status is not Verdict.ACCEPTED])
        return Accepted(job_id, taken)

    async def _store(self, incoming: Incoming, seen: set[str]) -> Taken:
        taken = Taken(incoming)
        if incoming.key in seen:
            return taken.reject("duplicate", f"{incoming.key!r} occurs twice in this request.")
        try:
            content = _capped(incoming.content, self.max_document_bytes)
            taken.blob = await self.blobs.put(blob_key(self.tenant, taken.file_id), content)
        except TooLarge as error:
            return taken.reject(error.code, f"{incoming.name!r}: {error.detail}")
        if taken.blob.size_bytes == 0:
            return taken.reject("empty", f"{incoming.name!r} is empty.")
        return taken

    async def _register(self, collection_id: UUID, taken: Sequence[Taken]) -> UUID:
        async with self.database.unit_of_work(self.tenant) as session:
            collections, documents = Collections(session, self.tenant), Documents(session, self.tenant)
            # Locked, so that it is not deleted, nor the same document added twice, meanwhile.
            collection = await collections.get(collection_id, lock=True)
            candidates = [one for one in taken if one.status is Verdict.ACCEPTED]
            known = await documents.by_external_ids(collection.id, [c.incoming.key for c in candidates])
            versions = Versions(session, self.tenant)
            newest = await versions.newest_of([document.newest_version_id for document in known.values()])
            job = Job(
                org_id=self.tenant.org_id,
                id=new_id(),
                project_id=self.tenant.project,
                kind="ingestion",
                subject_id=collection.id,
                skipped=0,
            )
            await Jobs(session, self.tenant).add(job)
            batch = _Batch()
            for one in candidates:
                held = known.get(one.incoming.key)
                self._register_one(collection, one, held, newest.get(held.id) if held else None, batch)
            await WorkItems(session, self.tenant).cancel_open(batch.replaced)
            for item in batch.items:
                item.job_id = job.id
            await documents.add_all(batch.documents)
            await Files(session, self.tenant).add_all(batch.files)
            await Versions(session, self.tenant).add_all(batch.versions)
            await WorkItems(session, self.tenant).add_all(batch.items)
            job.skipped = sum(one.status is Verdict.UNCHANGED for one in taken)
            wake_after(session, INGEST_QUEUE)
            return job.id

    def _register_one(
        self,
        collection: Collection,
        taken: Taken,
        known: Document | None,
        newest: DocumentVersion | None,
        batch: _Batch,
    ) -> None:
        blob = taken.blob
        if blob is None:
            raise RuntimeError("registered before its bytes were stored")
        ordinal = 1
        if known is not None and newest is not None:
            if (
                newest.content_hash == blob.sha256
                and not _failed(known)
                and not _changed(known, taken.incoming)
            ):
                taken.status, taken.document_id = Verdict.UNCHANGED, known.id
                return
            batch.replaced.append(known.id)
            ordinal = newest.ordinal + 1
        version_id = new_id()
        document = known or self._new_document(collection, taken.incoming, version_id)
        document.newest_version_id = version_id
        document.status, document.error = DocumentStatus.ACCEPTED, None
        document.name, document.size_bytes = taken.incoming.name, blob.size_bytes
        if taken.incoming.metadata or known is None:
            document.doc_metadata = taken.incoming.metadata
        if taken.incoming.title:
            document.title = taken.incoming.title
        if known is None:
            batch.documents.append(document)
        taken.document_id = document.id
        batch.files.append(self._file(taken, blob))
        batch.versions.append(
            DocumentVersion(
                org_id=self.tenant.org_id,
                id=version_id,
                document_id=document.id,
                file_id=taken.file_id,
                ordinal=ordinal,
                content_hash=blob.sha256,
                pipeline_version_id=collection.pipeline_version_id,
            )
        )
        batch.items.append(self._item(taken.incoming, document.id, version_id))

    def _file(self, taken: Taken, blob: StoredBlob) -> File:
        return File(
            org_id=self.tenant.org_id,
            id=taken.file_id,
            project_id=self.tenant.project,
            name=taken.incoming.name,
            media_type=taken.incoming.media_type or "application/octet-stream",
            size_bytes=blob.size_bytes,
            sha256=blob.sha256,
            blob_key=blob_key(self.tenant, taken.file_id),
        )

    def _item(self, incoming: Incoming, document_id: UUID, version_id: UUID) -> WorkItem:
        payload: Json = {"version_id": str(version_id), "title_given": incoming.title is not None}
        if incoming.exactly_text:
            payload["media_type"] = "text/plain"
        return WorkItem(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            queue=INGEST_QUEUE,
            kind=WorkKind.INGEST,
            subject_id=document_id,
            payload=payload,
        )

    def _new_document(self, collection: Collection, incoming: Incoming, version_id: UUID) -> Document:
        return Document(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            collection_id=collection.id,
            external_id=incoming.key,
            title=incoming.title or incoming.name,
            newest_version_id=version_id,
        )

    async def _discard(self, taken: Sequence[Taken]) -> None:
        for one in taken:
            if one.blob is None:
                continue
            try:
                await self.blobs.delete(blob_key(self.tenant, one.file_id))
            except AppError as error:
                logger.warning("blob_left_over", file_id=str(one.file_id), error=error.detail)


def _failed(document: Document) -> bool:
    return document.status in (DocumentStatus.FAILED, DocumentStatus.CANCELLED)


def _changed(document: Document, incoming: Incoming) -> bool:
    """Whether a title or metadata was given that the document does not have yet."""
    retitled = incoming.title is not None and incoming.title != document.title
    return retitled or bool(incoming.metadata and incoming.metadata != document.doc_metadata)


async def _capped(content: AsyncIterable[bytes], limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in content:
        size += len(chunk)
        if size > limit:
            raise TooLarge(f"larger than {limit} bytes (ORRERY_MAX_UPLOAD_BYTES).")
        yield chunk
