"""Ingestion: one document version from its bytes to search, stage by stage.

accepted → parsing → chunking → embedding → indexing → ready. Each stage ends in a transaction that is
guarded by the work item's fence, so a late or second worker writes nothing, and begins by looking whether
its result is stored already, so a document whose worker died goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.blobs import Blobs
from app.core.failpoints import failpoint
from app.core.ids import stable_id
from app.db.base import Json
from app.db.postgres.models.jobs import WorkKind, WorkState
from app.db.postgres.models.rag import Document, DocumentStatus, DocumentVersion, IndexVersion
from app.db.postgres.repositories.rag import (
    Chunks,
    Documents,
    Files,
    Indexes,
    Versions,
)
from app.db.postgres.repositories.work import Claim, LeaseLost, WorkItems
from app.db.session import Database
from app.rag.indexing import Indexed, average_length, indexed, page_starts
from app.rag.pipeline.compiler import compile_ingestion
from app.rag.sparse import detect_language
from app.rag.types import Block, BlockKind, Chunk, Dense, Embedder, ParsedDocument, SparseVector, VectorEntry
from app.services.index_service import count
from app.services.vector_stores import store_in


class Parse(Protocol):
    """File to text; `media_type` overrules what its content looks like."""

    async def __call__(self, path: Path, name: str, *, media_type: str | None = None) -> ParsedDocument: ...


@dataclass(frozen=True, slots=True)
class Subject:
    """What an item is about, read at its start."""

    document: Document
    version: DocumentVersion
    index: IndexVersion
    pipeline: Json
    blob_key: str
    name: str


@dataclass(frozen=True, slots=True)
class _Cut:
    """A version's chunks, what of them is indexed, and the average length that it is encoded with.

    `stored` are the chunks that an earlier attempt has given entries, perhaps with another average; `known`
    the vectors that the index has for texts of the first batch.
    """

    chunks: list[Chunk]
    texts: list[Indexed]
    average: float = 0.0
    stored: frozenset[UUID] = frozenset()
    known: Mapping[bytes, Dense] = field(default_factory=dict)

    def weights(self, version: DocumentVersion, average: float) -> dict[UUID, SparseVector]:
        pairs = zip(self.chunks, self.texts, strict=True)
        return {_chunk_id(version, chunk): text.sparse(average) for chunk, text in pairs}

    def waiting(self, version: DocumentVersion) -> list[tuple[Chunk, Indexed]]:
        """What has no entry yet."""
        pairs = zip(self.chunks, self.texts, strict=True)
        return [pair for pair in pairs if _chunk_id(version, pair[0]) not in self.stored]


@dataclass(slots=True)
class IngestionService:
    """Handler of the work item `ingest`."""

    database: Database
    blobs: Blobs
    parse: Parse
    embedder: Embedder
    batch_size: int = 64

    async def ingest(self, claim: Claim) -> None:
        """Brings one version to `ready`. Raises what ends or postpones the item."""
        subject = await self._begin(claim)
        failpoint("ingest.begun", subject.name)
        parsed = await self._parsed(claim, subject)
        cut = await self._chunked(claim, subject, parsed)
        last = await self._embedded(claim, subject, cut)
        await self._publish(claim, subject, parsed, cut, last)

    async def failed(self, claim: Claim, reason: Json) -> None:
        """Shows a final failure on the document, with the stage it happened in, and ends the item."""
        async with self.database.unit_of_work(claim.tenant) as session:
            documents = Documents(session, claim.tenant)
            document = await documents.tombstoned(claim.subject_id, lock=True)
            item = await WorkItems(session, claim.tenant).get(claim.id)
            error = reason | {"stage": item.stage or DocumentStatus.ACCEPTED.value}
            await WorkItems(session, claim.tenant).finish(claim, WorkState.FAILED, error=error)
            if document is not None and "version_id" in claim.payload:
                await documents.set_status(
                    document.id, UUID(claim.payload["version_id"]), DocumentStatus.FAILED, error=error
                )
            failpoint("ingest.failing")
        failpoint("ingest.failed")

    async def _begin(self, claim: Claim) -> Subject:
        version_id = UUID(claim.payload["version_id"])
        async with self._writing(claim, DocumentStatus.PARSING) as (session, document):
            version, pipeline, file, index = await Versions(session, claim.tenant).with_origin(version_id)
            if version.text is not None:  # an earlier attempt has parsed it
                await self._show(session, claim, DocumentStatus.CHUNKING)
            failpoint("ingest.beginning", file.name)
            return Subject(document, version, index, pipeline.document, file.blob_key, file.name)

    async def _parsed(self, claim: Claim, subject: Subject) -> ParsedDocument:
        version = subject.version
        if version.text is not None:
            return _restored(version)
        media_type = claim.payload.get("media_type") or compile_ingestion(subject.pipeline).parser.media_type
        async with self.blobs.as_file(subject.blob_key) as path:
            parsed = await self.parse(path, subject.name, media_type=media_type)
        if parsed.language is None:
            parsed = replace(parsed, language=await asyncio.to_thread(detect_language, parsed.text))
        async with self._writing(claim, DocumentStatus.CHUNKING) as (session, document):
            stored = await Versions(session, claim.tenant).get(version.id)
            stored.text, stored.blocks = parsed.text, [_dump(block) for block in parsed.blocks]
            stored.parsed_metadata = {
                "title": parsed.title,
                "page_count": parsed.page_count,
                "language": parsed.language,
                "media_type": parsed.media_type,
            }
            if document.newest_version_id == version.id:
                document.media_type, document.page_count = parsed.media_type, parsed.page_count
                document.language = parsed.language
                if parsed.title and not claim.payload.get("title_given"):
                    document.title = parsed.title
                    document.revision += 1
            stored.title = subject.version.title = document.title
            failpoint("ingest.parsing", subject.name)
        failpoint("ingest.parsed", subject.name)
        return parsed

    async def _chunked(self, claim: Claim, subject: Subject, parsed: ParsedDocument) -> _Cut:
        cut = await asyncio.to_thread(_cut, subject, parsed)
        async with self._writing(claim, DocumentStatus.EMBEDDING) as (session, _):
            await Chunks(session, claim.tenant).store(_rows(claim, subject, parsed, cut.chunks))
            if cut.chunks:  # nothing of an empty text is encoded, and it decides no index's average
                cut = await self._with_stored(session, claim, subject, cut)
            failpoint("ingest.chunking", subject.name)
        failpoint("ingest.chunked", subject.name)
        return cut

    async def _with_stored(self, session: AsyncSession, claim: Claim, subject: Subject, cut: _Cut) -> _Cut:
        """`cut` with what the index knows of it."""
        store = store_in(session, claim.tenant, subject.index.id)
        average = await Indexes(session, claim.tenant).fix_average(
            subject.index.id, average_length(cut.texts)
        )
        cut = replace(cut, average=average, stored=frozenset(await store.stored(subject.version.id)))
        first = cut.waiting(subject.version)[: self.batch_size]
        return replace(cut, known=await store.known([text.digest for _, text in first]))

    async def _embedded(self, claim: Claim, subject: Subject, cut: _Cut) -> list[VectorEntry]:
        """Stores an entry for each chunk, except for those of the last batch, which it answers."""
        waiting, known = cut.waiting(subject.version), cut.known
        for start in range(0, len(waiting), self.batch_size):
            batch = waiting[start : start + self.batch_size]
            if start:
                async with self.database.unit_of_work(claim.tenant) as session:
                    store = store_in(session, claim.tenant, subject.index.id)
                    known = await store.known([text.digest for _, text in batch])
            entries = await self._entries(subject, batch, known, cut.average)
            if start + self.batch_size >= len(waiting):
                return entries
            async with self._writing(claim, DocumentStatus.EMBEDDING) as (session, _):
                await store_in(session, claim.tenant, subject.index.id).upsert(entries)
                failpoint("ingest.embedding", subject.name)
            failpoint("ingest.embedded", subject.name)
        return []

    async def _entries(
        self,
        subject: Subject,
        batch: list[tuple[Chunk, Indexed]],
        known: Mapping[bytes, Dense],
        average: float,
    ) -> list[VectorEntry]:
        """Vectors come from the index where it knows the text already, from the model otherwise."""
        vectors = dict(known)
        fresh = {text.digest: text.text for _, text in batch if text.digest not in vectors}
        embedded = await self.embedder.embed(list(fresh.values()))
        vectors |= dict(zip(fresh, embedded, strict=True))
        return [
            VectorEntry(
                chunk_id=_chunk_id(subject.version, chunk),
                document_id=subject.document.id,
                document_version_id=subject.version.id,
                text_hash=text.digest,
                term_count=len(text.tokens),
                dense=vectors[text.digest],
                sparse=text.sparse(average),
                payload=subject.document.doc_metadata,
            )
            for chunk, text in batch
        ]

    async def _publish(
        self, claim: Claim, subject: Subject, parsed: ParsedDocument, cut: _Cut, last: list[VectorEntry]
    ) -> None:
        """One transaction: the new version is searched, the old one is gone, the item is done."""
        version = subject.version
        async with self._writing(claim, DocumentStatus.INDEXING) as (session, document):
            store = store_in(session, claim.tenant, subject.index.id)
            await store.upsert(last)
            failpoint("ingest.indexing", subject.name)
            index = await Indexes(session, claim.tenant).get(subject.index.id, lock=True)
            if cut.chunks and (cut.stored or index.average_length != cut.average):
                await store.reweigh(cut.weights(version, index.average_length or cut.average))
            change = await store.publish(document.id, version.id, payload=document.doc_metadata)
            language = parsed.language or "unknown"
            if language not in index.languages:
                index.languages = [*index.languages, language]
            document.version_id, document.chunk_count = version.id, len(cut.chunks)
            await session.flush()
            await Documents(session, claim.tenant).set_status(document.id, version.id, DocumentStatus.READY)
            await WorkItems(session, claim.tenant).finish(claim, WorkState.SUCCEEDED)
            await count(session, claim, index, change)
            await self._drop_older(session, claim, version)
            failpoint("ingest.publishing", subject.name)
        failpoint("ingest.published", subject.name)

    async def _drop_older(self, session: AsyncSession, claim: Claim, version: DocumentVersion) -> None:
        """Deletes the rows of older versions; their blobs go through the outbox.

        Versions that differ in their title only have one file, which goes with the last of them.
        """
        versions = await Versions(session, claim.tenant).of(version.document_id)
        dropped = [old for old in versions if old.ordinal < version.ordinal]
        kept = {one.file_id for one in versions if one.ordinal >= version.ordinal}
        for old in dropped:
            await Versions(session, claim.tenant).erase(old.id)
        for file_id in {old.file_id for old in dropped} - kept:
            file = await Files(session, claim.tenant).get(file_id)
            payload = {"blob_key": file.blob_key}
            await WorkItems(session, claim.tenant).queue(WorkKind.ERASE_BLOB, file.id, payload=payload)
            await Files(session, claim.tenant).erase(file.id)

    @asynccontextmanager
    async def _writing(
        self, claim: Claim, stage: DocumentStatus
    ) -> AsyncIterator[tuple[AsyncSession, Document]]:
        """A transaction that holds the document, then the item (everybody locks in this order)."""
        async with self.database.unit_of_work(claim.tenant) as session:
            documents = Documents(session, claim.tenant)
            document = await documents.tombstoned(claim.subject_id, lock=True)
            if document is None or document.deleted_at is not None:
                raise LeaseLost(f"The document {claim.subject_id} is deleted.")
            await self._show(session, claim, stage)
            yield session, document

    async def _show(self, session: AsyncSession, claim: Claim, stage: DocumentStatus) -> None:
        """Shows the stage on the item, which must still be ours, and on the document."""
        await WorkItems(session, claim.tenant).guard(claim, stage=stage.value)
        version_id = UUID(claim.payload["version_id"])
        await Documents(session, claim.tenant).set_status(claim.subject_id, version_id, stage)


def _cut(subject: Subject, parsed: ParsedDocument) -> _Cut:
    """Computes; for a thread."""
    chunks = compile_ingestion(subject.pipeline).chunker.chunk(parsed)
    title = subject.version.title or subject.document.title
    return _Cut(chunks, [indexed(title, chunk.text, parsed.language) for chunk in chunks])


def _rows(claim: Claim, subject: Subject, parsed: ParsedDocument, chunks: list[Chunk]) -> list[Json]:
    version = subject.version
    return [
        {
            "org_id": claim.org_id,
            "id": _chunk_id(version, chunk),
            "document_id": version.document_id,
            "document_version_id": version.id,
            "pipeline_version_id": version.pipeline_version_id,
            "ordinal": chunk.ordinal,
            "text": chunk.text,
            "start_offset": chunk.start,
            "end_offset": chunk.end,
            "page": chunk.page,
            "heading_path": list(chunk.heading_path),
            "token_count": chunk.token_count,
            "page_starts": page_starts(parsed, chunk),
        }
        for chunk in chunks
    ]


def _chunk_id(version: DocumentVersion, chunk: Chunk) -> UUID:
    return stable_id(version.id, version.pipeline_version_id, chunk.ordinal)


def _dump(block: Block) -> list[Any]:
    return [block.kind.value, block.start, block.end, block.page, list(block.heading_path)]


def _restored(version: DocumentVersion) -> ParsedDocument:
    """What the parsing stage of an earlier attempt stored."""
    return ParsedDocument(
        text=version.text or "",
        blocks=tuple(
            Block(BlockKind(kind), start, end, page, tuple(path))
            for kind, start, end, page, path in version.blocks or ()
        ),
        **(version.parsed_metadata or {}),
    )
