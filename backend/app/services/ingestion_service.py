"""Ingestion: one document version from its bytes to search, stage by stage.

accepted → parsing → chunking → embedding → indexing → ready. Each stage ends in a transaction that is
guarded by the work item's fence, so a late or second worker writes nothing, and begins by looking whether
its result is stored already, so a document whose worker died goes on where it was. Publishing is one
transaction; `indexing` is seen where that has to wait (ADR 8).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.blobs import Blobs
from app.core.failpoints import failpoint
from app.db.base import Json
from app.db.postgres.models.jobs import WorkKind, WorkState
from app.db.postgres.models.rag import Document, DocumentStatus, DocumentVersion, IndexVersion
from app.db.postgres.repositories.rag import Chunks, Documents, Files, Indexes, Versions
from app.db.postgres.repositories.work import Claim, LeaseLost, WorkItems
from app.db.session import Database
from app.rag.indexing import average_length
from app.rag.pipeline.compiler import compile_ingestion
from app.rag.sparse import detect_language
from app.rag.types import Dense, Embedder, ParsedDocument, VectorEntry
from app.services.cuts import Cut, Piece, chunk_rows, cut, restored, stored_blocks, weights
from app.services.index_service import count
from app.services.vector_stores import store_in

_AT_ONCE = 200
_PAUSES_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.16)


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
        try:
            await self._publish(claim, subject, cut, last)
        except LeaseLost:
            raise
        except Exception:
            with suppress(Exception):  # the first one is what counts
                async with self._writing(claim, DocumentStatus.INDEXING):
                    pass
            raise

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
            return await asyncio.to_thread(restored, version)
        media_type = claim.payload.get("media_type") or compile_ingestion(subject.pipeline).parser.media_type
        async with self.blobs.as_file(subject.blob_key) as path:
            parsed = await self.parse(path, subject.name, media_type=media_type)
        if parsed.language is None:
            parsed = replace(parsed, language=await asyncio.to_thread(detect_language, parsed.text))
        async with self._writing(claim, DocumentStatus.CHUNKING) as (session, document):
            stored = await Versions(session, claim.tenant).get(version.id)
            stored.text, stored.blocks = parsed.text, stored_blocks(parsed)
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

    async def _chunked(self, claim: Claim, subject: Subject, parsed: ParsedDocument) -> Cut:
        version, title = subject.version, subject.version.title or subject.document.title
        made = await asyncio.to_thread(cut, version, subject.pipeline, title, parsed)
        rows = await asyncio.to_thread(chunk_rows, version, parsed, made.pieces)
        async with self._writing(claim, DocumentStatus.EMBEDDING) as (session, _):
            await Chunks(session, claim.tenant).store(rows)
            if made.pieces:  # nothing of an empty text is encoded, and it decides no index's average
                made = await self._with_stored(session, claim, subject, made)
            failpoint("ingest.chunking", subject.name)
        failpoint("ingest.chunked", subject.name)
        return made

    async def _with_stored(self, session: AsyncSession, claim: Claim, subject: Subject, cut: Cut) -> Cut:
        """`cut` with what the index knows of it."""
        store = store_in(session, claim.tenant, subject.index.id)
        average = await Indexes(session, claim.tenant).fix_average(
            subject.index.id, average_length([piece.text for piece in cut.pieces])
        )
        cut = replace(cut, average=average, stored=frozenset(await store.stored(subject.version.id)))
        first = cut.waiting[: self.batch_size]
        return replace(cut, known=await store.known([piece.text.digest for piece in first]))

    async def _embedded(self, claim: Claim, subject: Subject, cut: Cut) -> list[VectorEntry]:
        """Stores an entry for each chunk, except for those of the last batch, which it answers."""
        waiting, known = cut.waiting, cut.known
        for start in range(0, len(waiting), self.batch_size):
            batch = waiting[start : start + self.batch_size]
            if start:
                async with self.database.unit_of_work(claim.tenant) as session:
                    store = store_in(session, claim.tenant, subject.index.id)
                    known = await store.known([piece.text.digest for piece in batch])
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
        batch: list[Piece],
        known: Mapping[bytes, Dense],
        average: float,
    ) -> list[VectorEntry]:
        """Vectors come from the index where it knows the text already, from the model otherwise."""
        vectors = dict(known)
        texts = {piece.text.digest: piece.text.text for piece in batch}
        fresh = {digest: text for digest, text in texts.items() if digest not in vectors}
        embedded = await self.embedder.embed(list(fresh.values()))
        vectors |= dict(zip(fresh, embedded, strict=True))
        return [
            VectorEntry(
                chunk_id=piece.id,
                document_id=subject.document.id,
                document_version_id=subject.version.id,
                text_hash=piece.text.digest,
                term_count=len(piece.text.tokens),
                dense=vectors[piece.text.digest],
                sparse=piece.text.sparse(average),
                payload=subject.document.doc_metadata,
            )
            for piece in batch
        ]

    async def _publish(self, claim: Claim, subject: Subject, cut: Cut, last: list[VectorEntry]) -> None:
        """Ends in one transaction: the new version is searched, the old one is gone, the item is done.

        The document is shown as `indexing` before that only where it takes long: others publish in its
        collection, or weights have to be encoded again; or where a worker died with it.
        """
        encoded = None if cut.stored else cut.average
        at_once, waits = not (cut.stored or claim.deaths), False
        while True:
            index = None
            async with self._writing(claim, DocumentStatus.INDEXING) as (session, document):
                await store_in(session, claim.tenant, subject.index.id).upsert(last)
                failpoint("ingest.indexing", subject.name)
                if waits:
                    index = await Indexes(session, claim.tenant).get(subject.index.id, lock=True)
                elif at_once:
                    index = await self._locked_soon(session, claim, subject.index.id)
                if index is not None and (not cut.pieces or index.average_length == encoded):
                    await self._put_in_force(session, claim, subject, document, index, cut)
                    break
            last, waits = [], True
            average = cut.average if index is None else index.average_length
            if average is not None and average != encoded:
                await self._encode_again(claim, subject, cut, average)
                encoded = average
        failpoint("ingest.published", subject.name)

    async def _locked_soon(self, session: AsyncSession, claim: Claim, index_id: UUID) -> IndexVersion | None:
        """The index; None where others have it for longer than it takes to publish a few documents."""
        indexes = Indexes(session, claim.tenant)
        index = await indexes.get_if_free(index_id)
        for pause_s in _PAUSES_S:
            if index is not None:
                break
            await asyncio.sleep(pause_s)
            index = await indexes.get_if_free(index_id)
        return index

    async def _encode_again(self, claim: Claim, subject: Subject, cut: Cut, average: float) -> None:
        """Replaces the weights of all entries, some at a time: nobody waits for long."""
        for start in range(0, len(cut.pieces), _AT_ONCE):
            again = await asyncio.to_thread(weights, cut.pieces[start : start + _AT_ONCE], average)
            async with self._writing(claim, DocumentStatus.INDEXING) as (session, _):
                await store_in(session, claim.tenant, subject.index.id).reweigh(again)

    async def _put_in_force(
        self,
        session: AsyncSession,
        claim: Claim,
        subject: Subject,
        document: Document,
        index: IndexVersion,
        cut: Cut,
    ) -> None:
        store, version = store_in(session, claim.tenant, index.id), subject.version
        change = await store.publish(document.id, version.id, payload=document.doc_metadata)
        if cut.language not in index.languages:
            index.languages = [*index.languages, cut.language]
        document.version_id, document.chunk_count = version.id, len(cut.pieces)
        await session.flush()
        await Documents(session, claim.tenant).set_status(document.id, version.id, DocumentStatus.READY)
        await WorkItems(session, claim.tenant).finish(claim, WorkState.SUCCEEDED)
        await count(session, claim, index, change)
        await self._drop_older(session, claim, version)
        failpoint("ingest.publishing", subject.name)

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
