"""Intake: documents handed in are stored, registered and queued; after the answer none can be lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from uuid import UUID

import structlog
from sqlalchemy import func

from app.core.blobs import Blobs, StoredBlob
from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError, NotFound, TooLarge, Unavailable
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.tasks import end
from app.db.base import Json
from app.db.postgres.models.files import File
from app.db.postgres.models.jobs import JobKind, WorkItem, WorkKind
from app.db.postgres.models.rag import Collection, Document, DocumentStatus, DocumentVersion
from app.db.postgres.repositories.rag import Collections, Documents, Files, Versions
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Database, Tenant

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
    folder: str
    status: Verdict = Verdict.ACCEPTED
    document_id: UUID | None = None
    error: Json | None = None
    blob: StoredBlob | None = None
    file_id: UUID = field(default_factory=new_id)

    @property
    def blob_key(self) -> str:
        return f"{self.folder}/{self.file_id}"

    def reject(self, code: str, message: str) -> Taken:
        self.status, self.error = Verdict.REJECTED, {"code": code, "message": message}
        return self


@dataclass(frozen=True, slots=True)
class _Batch:
    """Rows of one request, inserted table by table."""

    documents: list[Document] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    versions: list[DocumentVersion] = field(default_factory=list)
    payloads: dict[UUID, Json] = field(default_factory=dict)
    sizes: dict[UUID, int] = field(default_factory=dict)
    replaced: list[UUID] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Accepted:
    job_id: UUID
    items: Sequence[Taken]


@dataclass(frozen=True, slots=True)
class Upload:
    """One request: where its bytes lie, and the outbox item that erases those that get no row."""

    tenant: Tenant
    collection_id: UUID
    id: UUID = field(default_factory=new_id)

    @property
    def folder(self) -> str:
        return f"{self.tenant.org_id}/{self.tenant.project}/files/{self.id}"

    def item(self, grace_s: float) -> WorkItem:
        return WorkItem(
            org_id=self.tenant.org_id,
            id=self.id,
            project_id=self.tenant.project,
            queue=INGEST_QUEUE,
            kind=WorkKind.ERASE_UPLOAD,
            subject_id=self.id,
            payload={"folder": self.folder},
            due_at=func.now() + timedelta(seconds=grace_s),
        )


@dataclass(slots=True)
class IntakeService:
    """Opens its own transactions: bytes are stored before the rows that speak of them.

    Before any byte, an outbox item is committed that erases the bytes without a row in `grace_s`; it is put
    off while the request lives, and withdrawn by the transaction that registers all of them.
    """

    database: Database
    tenant: Tenant
    blobs: Blobs
    max_document_bytes: int
    grace_s: float = 3600

    async def accept(self, collection: str, incoming: AsyncIterable[Incoming]) -> Accepted:
        """Each comes back `accepted`, `unchanged` (this content is here or on its way) or `rejected`.

        Of what is unchanged, bytes that the blob storage has lost are stored again.
        """
        async with self.database.unit_of_work(self.tenant) as session:
            target = await Collections(session, self.tenant).find(collection)
            upload = Upload(self.tenant, target.id)
            await WorkItems(session, self.tenant).add_all([upload.item(self.grace_s)])
        failpoint("intake.begun")
        taken: list[Taken] = []
        async with self._kept(upload):
            try:
                async for one in incoming:
                    taken.append(await self._store(upload, one, {other.incoming.key for other in taken}))
            except BaseException:
                await self._discard(taken)
                raise
            try:
                job_id = await self._register(upload, taken)
            except AppError:  # rolled back; of anything else it is not known, so the bytes stay
                await self._discard(taken)
                raise
        failpoint("intake.registered")
        await self._mend([one for one in taken if one.status is Verdict.UNCHANGED])
        await self._discard([one for one in taken if one.status is not Verdict.ACCEPTED])
        return Accepted(job_id, taken)

    @asynccontextmanager
    async def _kept(self, upload: Upload) -> AsyncIterator[None]:
        """Keeps the bytes of `upload` for as long as the block lasts."""
        task = asyncio.create_task(self._put_off(upload), name=f"upload-{upload.id}")
        try:
            yield
        finally:
            await end(task)

    async def _put_off(self, upload: Upload) -> None:
        while True:
            await asyncio.sleep(self.grace_s / 4)
            try:
                async with self.database.unit_of_work(self.tenant) as session:
                    await WorkItems(session, self.tenant).postpone(upload.id, delay_s=self.grace_s)
            except Exception as error:  # registering will tell whether it was too late
                logger.warning("upload_not_prolonged", upload=str(upload.id), error=repr(error))

    async def _store(self, upload: Upload, incoming: Incoming, seen: set[str]) -> Taken:
        taken = Taken(incoming, upload.folder)
        if incoming.key in seen:
            return taken.reject("duplicate", f"{incoming.key!r} occurs twice in this request.")
        try:
            content = _capped(incoming.content, self.max_document_bytes)
            taken.blob = await self.blobs.put(taken.blob_key, content)
        except TooLarge as error:
            return taken.reject(error.code, f"{incoming.name!r}: {error.detail}")
        if taken.blob.size_bytes == 0:
            return taken.reject("empty", f"{incoming.name!r} is empty.")
        failpoint("intake.blob_stored", incoming.name)
        return taken

    async def _register(self, upload: Upload, taken: Sequence[Taken]) -> UUID:
        async with self.database.unit_of_work(self.tenant, effect=True) as session:
            collections, documents = Collections(session, self.tenant), Documents(session, self.tenant)
            # Locked, so that it is not deleted, nor the same document added twice, meanwhile.
            collection = await collections.get(upload.collection_id, lock=True)
            candidates = [one for one in taken if one.status is Verdict.ACCEPTED]
            known = await documents.by_external_ids(collection.id, [c.incoming.key for c in candidates])
            versions = Versions(session, self.tenant)
            newest = await versions.newest_of([document.newest_version_id for document in known.values()])
            job = await Jobs(session, self.tenant).open(JobKind.INGESTION, collection.id)
            batch = _Batch()
            for one in candidates:
                held = known.get(one.incoming.key)
                self._register_one(collection, one, held, newest.get(held.id) if held else None, batch)
            items = WorkItems(session, self.tenant)
            await items.cancel_open(batch.replaced)
            await documents.add_all(batch.documents)
            await Files(session, self.tenant).add_all(batch.files)
            await Versions(session, self.tenant).add_all(batch.versions)
            await items.queue_all(WorkKind.INGEST, batch.payloads, sizes=batch.sizes, job_id=job.id)
            job.skipped = sum(one.status is Verdict.UNCHANGED for one in taken)
            await self._settle(items, upload, taken)
            failpoint("intake.registering")
            return job.id

    async def _settle(self, items: WorkItems, upload: Upload, taken: Sequence[Taken]) -> None:
        """Ends the outbox item, unless bytes are left that get no row."""
        left = any(one.blob and one.status is not Verdict.ACCEPTED for one in taken)
        ours = await (items.postpone(upload.id, delay_s=self.grace_s) if left else items.withdraw(upload.id))
        if not ours:
            raise Unavailable("The upload stood still for so long that it was given up: send it again.")

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
        else:
            document.revision += 1
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
        batch.payloads[document.id] = _payload(taken.incoming, version_id, collection.id)
        batch.sizes[document.id] = blob.size_bytes

    def _file(self, taken: Taken, blob: StoredBlob) -> File:
        return File(
            org_id=self.tenant.org_id,
            id=taken.file_id,
            project_id=self.tenant.project,
            name=taken.incoming.name,
            media_type=taken.incoming.media_type or "application/octet-stream",
            size_bytes=blob.size_bytes,
            sha256=blob.sha256,
            blob_key=taken.blob_key,
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

    async def _mend(self, unchanged: Sequence[Taken]) -> None:
        """Stores bytes again that were lost, of documents whose content has come once more."""
        again = {one.document_id: one for one in unchanged if one.document_id}
        if not again:
            return
        async with self.database.unit_of_work(self.tenant) as session:
            files = await Files(session, self.tenant).newest_of(list(again))
        for document_id, file in files.items():
            if await self.blobs.size(file.blob_key) != file.size_bytes:
                await self._store_again(document_id, again[document_id])

    async def _store_again(self, document_id: UUID, taken: Taken) -> None:
        """Under a lock, so that the document's deletion erases these bytes, too, or comes first."""
        async with self.database.unit_of_work(self.tenant) as session:
            try:
                await Documents(session, self.tenant).get(document_id, lock=True)
            except NotFound:
                return
            file = (await Files(session, self.tenant).newest_of([document_id]))[document_id]
            if taken.blob is not None and file.sha256 == taken.blob.sha256:
                await self.blobs.put(file.blob_key, self.blobs.read(taken.blob_key))
                logger.warning("blob_stored_again", document_id=str(document_id), file_id=str(file.id))

    async def _discard(self, taken: Sequence[Taken]) -> None:
        """Frees the space at once; what fails or is killed here is left to the outbox item."""
        for one in taken:
            if one.blob is None:
                continue
            try:
                await self.blobs.delete(one.blob_key)
            except AppError as error:
                logger.warning("blob_left_over", file_id=str(one.file_id), error=error.detail)


def _payload(incoming: Incoming, version_id: UUID, collection_id: UUID) -> Json:
    payload: Json = {
        "version_id": str(version_id),
        "collection_id": str(collection_id),  # for the log
        "title_given": incoming.title is not None,
    }
    return payload | {"media_type": "text/plain"} if incoming.exactly_text else payload


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
