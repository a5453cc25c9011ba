"""Pipelines, collections, index versions, documents with versions and chunks, and files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from uuid import UUID

from sqlalchemy import (
    Select,
    Text,
    delete,
    func,
    inspect,
    literal_column,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import undefer

from app.db.base import Json
from app.db.postgres.models.files import File
from app.db.postgres.models.rag import (
    TITLE_KEY,
    ChunkRow,
    Collection,
    Document,
    DocumentStatus,
    DocumentVersion,
    IndexStatus,
    IndexVersion,
    RAGPipeline,
    RAGPipelineVersion,
)
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts
from app.db.postgres.repositories.stages import SHOW_STATUS


def own_pipeline(collection_id: UUID) -> str:
    """The slug of the pipeline that a collection has once its settings are not the usual ones."""
    return f"ingestion-{collection_id.hex}"


class Pipelines(Repository[RAGPipeline]):
    model = RAGPipeline
    noun = "pipeline"

    async def ensure(self, row: RAGPipeline) -> RAGPipeline:
        """The pipeline with this slug, inserted if there is none; locked until commit."""
        values = {c.key: getattr(row, c.key) for c in inspect(RAGPipeline).column_attrs}
        values = {key: value for key, value in values.items() if value is not None}
        await self.session.execute(insert(RAGPipeline).values(**values).on_conflict_do_nothing())
        return await self.find(row.slug, lock=True)


class PipelineVersions(Repository[RAGPipelineVersion]):
    model = RAGPipelineVersion
    noun = "pipeline version"
    by_project = False

    async def newest(self, pipeline_id: UUID) -> RAGPipelineVersion | None:
        statement = self.visible().where(RAGPipelineVersion.pipeline_id == pipeline_id)
        return await self.one_or_none(statement.order_by(RAGPipelineVersion.version.desc()).limit(1))


class Collections(Repository[Collection]):
    """Collections of one project that are not deleted."""

    model = Collection
    noun = "collection"
    sorts: ClassVar[Sorts] = {"created_at": Collection.created_at, "name": Collection.name}

    def visible(self) -> Select[Collection]:
        return super().visible().where(Collection.deleted_at.is_(None))

    async def names(self) -> frozenset[str]:
        """Slugs and ids: whatever a binding may say."""
        rows = await self.session.execute(self.visible().with_only_columns(Collection.id, Collection.slug))
        return frozenset(str(name) for row in rows for name in row)

    async def hide(self, collection: Collection) -> None:
        """Deletes the collection and its documents for everybody but the work that erases them."""
        await self.session.execute(
            update(Collection)
            .where(Collection.org_id == collection.org_id, Collection.id == collection.id)
            .values(deleted_at=func.now())
        )
        await self.session.execute(
            update(Document)
            .where(
                Document.org_id == collection.org_id,
                Document.collection_id == collection.id,
                Document.deleted_at.is_(None),
            )
            .values(deleted_at=func.now())
        )

    async def erase(self, collection_id: UUID) -> None:
        """Deletes the row, and the pipeline that nobody else has."""
        await self.session.execute(
            delete(Collection).where(Collection.org_id == self.tenant.org_id, Collection.id == collection_id)
        )
        await self.session.execute(
            delete(RAGPipeline).where(
                RAGPipeline.org_id == self.tenant.org_id,
                RAGPipeline.project_id == self.tenant.project,
                RAGPipeline.slug == own_pipeline(collection_id),
            )
        )


class Indexes(Repository[IndexVersion]):
    """Index versions of one organization's collections."""

    model = IndexVersion
    noun = "index"
    by_project = False

    async def live(self, collection_ids: Sequence[UUID]) -> list[IndexVersion]:
        return await self.many(
            self.visible().where(
                IndexVersion.collection_id.in_(collection_ids), IndexVersion.status == IndexStatus.LIVE
            )
        )

    async def of(self, collection_id: UUID, *, lock: bool = False) -> list[IndexVersion]:
        """Every index version of a collection, in id order; locked, changes of its statistics take turns."""
        statement = self.visible().where(IndexVersion.collection_id == collection_id)
        return await self.many(
            statement.order_by(IndexVersion.id).with_for_update(key_share=True) if lock else statement
        )

    async def get_if_free(self, index_id: UUID) -> IndexVersion | None:
        """The index, locked; None while somebody else has it."""
        statement = self.visible().where(IndexVersion.id == index_id)
        return await self.one_or_none(statement.with_for_update(key_share=True, skip_locked=True))

    async def fix_average(self, index_id: UUID, average: float) -> float:
        """The index's average length: `average` if none was set before (its first batch decides)."""
        found = (await self.get(index_id)).average_length
        if found is not None:
            return found  # the usual case waits for nobody
        statement = (
            update(IndexVersion)
            .where(IndexVersion.org_id == self.tenant.org_id, IndexVersion.id == index_id)
            .values(average_length=func.coalesce(IndexVersion.average_length, average))
            .returning(IndexVersion.average_length)
        )
        return (await self.session.execute(statement)).scalar_one() or average


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A chunk as it was indexed: with its version's title and language."""

    id: UUID
    text: str
    title: str
    language: str | None


class Documents(Repository[Document]):
    """Documents of one project that are not deleted."""

    model = Document
    noun = "document"
    sorts: ClassVar[Sorts] = {
        "created_at": Document.created_at,
        "title": literal_column(TITLE_KEY, Text),
    }
    large = (Document.doc_metadata,)

    def visible(self) -> Select[Document]:
        return super().visible().where(Document.deleted_at.is_(None))

    def of(self, collection_id: UUID) -> Select[Document]:
        return self.visible().where(Document.collection_id == collection_id)

    async def by_external_ids(self, collection_id: UUID, external_ids: Sequence[str]) -> dict[str, Document]:
        """Locked until commit, so that two uploads of one document do not race."""
        statement = self.of(collection_id).where(Document.external_id.in_(external_ids))
        rows = await self.many(statement.order_by(Document.id).with_for_update(key_share=True))
        return {row.external_id: row for row in rows}

    async def locked(self, document_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        """The newest versions of those documents that are not deleted; locked until commit."""
        statement = self.visible().where(Document.id.in_(document_ids)).order_by(Document.id)
        rows = await self.many(statement.with_for_update(key_share=True))
        return {row.id: row.newest_version_id for row in rows}

    async def tombstoned(self, document_id: UUID, *, lock: bool = False) -> Document | None:
        """The document even when it is deleted: for the work that is done on it."""
        statement = super().visible().where(Document.id == document_id)
        return await self.one_or_none(statement.with_for_update(key_share=True) if lock else statement)

    async def hidden_in(self, collection_id: UUID, *, limit: int) -> list[Document]:
        """Deleted documents whose rows are still there."""
        statement = super().visible().where(Document.collection_id == collection_id)
        return await self.many(statement.where(Document.deleted_at.is_not(None)).limit(limit))

    async def set_status(
        self, document_id: UUID, version_id: UUID, status: DocumentStatus, *, error: Json | None = None
    ) -> None:
        """Shows how far the newest version is; an older version's progress is not shown."""
        at = {"at_org": self.tenant.org_id, "at_id": document_id, "at_version": version_id}
        await self.session.execute(SHOW_STATUS, at | {"is_status": status, "is_error": error})

    async def set_statuses(
        self, versions: Mapping[UUID, UUID], status: DocumentStatus, *, error: Json | None = None
    ) -> None:
        """The same for many: version ids by document id."""
        await self.session.execute(
            update(Document)
            .where(
                Document.org_id == self.tenant.org_id,
                Document.id.in_(versions.keys()),
                tuple_(Document.id, Document.newest_version_id).in_(versions.items()),
            )
            .values(status=status, error=error, updated_at=func.now())
            .execution_options(synchronize_session=False)
        )

    async def erase(self, document_id: UUID) -> None:
        await self.session.execute(
            delete(Document).where(Document.org_id == self.tenant.org_id, Document.id == document_id)
        )

    async def statuses(self, collection_id: UUID) -> dict[DocumentStatus, int]:
        statement = (
            select(Document.status, func.count())
            .where(
                Document.org_id == self.tenant.org_id,
                Document.collection_id == collection_id,
                Document.deleted_at.is_(None),
            )
            .group_by(Document.status)
        )
        return {status: count for status, count in await self.session.execute(statement)}


_LARGE = (undefer(DocumentVersion.text), undefer(DocumentVersion.blocks))


class Versions(Repository[DocumentVersion]):
    model = DocumentVersion
    noun = "document version"
    by_project = False

    async def whole(self, version_id: UUID) -> DocumentVersion:
        """The version with its text and blocks."""
        version = await self.one_or_none(
            self.visible().where(DocumentVersion.id == version_id).options(*_LARGE)
        )
        if version is None:
            raise self.missing(version_id)
        return version

    async def with_origin(
        self, version_id: UUID
    ) -> tuple[DocumentVersion, RAGPipelineVersion, File, IndexVersion]:
        """The version with its text and blocks, its pipeline, its file, and the index it is searched by."""
        version, pipeline, index = DocumentVersion, RAGPipelineVersion, IndexVersion
        tables = (version, Document, pipeline, File, index)
        statement = (
            select(version, pipeline, File, index)
            .options(*_LARGE)
            .where(*(table.org_id == self.tenant.org_id for table in tables), version.id == version_id)
            .where(Document.id == version.document_id, pipeline.id == version.pipeline_version_id)
            .where(File.id == version.file_id)
            .where(index.collection_id == Document.collection_id, index.status == IndexStatus.LIVE)
        )
        row = (await self.session.execute(statement)).first()
        if row is None:
            raise self.missing(version_id)
        return row

    async def newest_of(self, version_ids: Sequence[UUID]) -> dict[UUID, DocumentVersion]:
        """Versions by their document's id."""
        rows = await self.many(self.visible().where(DocumentVersion.id.in_(version_ids)))
        return {row.document_id: row for row in rows}

    async def of(self, document_id: UUID) -> list[DocumentVersion]:
        statement = self.visible().where(DocumentVersion.document_id == document_id)
        return await self.many(statement.order_by(DocumentVersion.ordinal))

    async def erase(self, version_id: UUID) -> None:
        await self.session.execute(
            delete(DocumentVersion).where(
                DocumentVersion.org_id == self.tenant.org_id, DocumentVersion.id == version_id
            )
        )


class Files(Repository[File]):
    model = File
    noun = "file"

    async def known(self, file_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Those of `file_ids` that have a row."""
        statement = self.visible().with_only_columns(File.id).where(File.id.in_(file_ids))
        return frozenset((await self.session.execute(statement)).scalars())

    async def newest_of(self, document_ids: Sequence[UUID]) -> dict[UUID, File]:
        """The files of the newest versions, by their document's id."""
        statement = (
            self.visible()
            .join(DocumentVersion, DocumentVersion.file_id == File.id)
            .join(Document, Document.newest_version_id == DocumentVersion.id)
            .where(
                DocumentVersion.org_id == self.tenant.org_id,
                Document.org_id == self.tenant.org_id,
                Document.id.in_(document_ids),
            )
            .add_columns(Document.id)
        )
        return {document_id: file for file, document_id in await self.session.execute(statement)}

    async def erase(self, file_id: UUID) -> None:
        await self.session.execute(delete(File).where(File.org_id == self.tenant.org_id, File.id == file_id))


class Chunks(Repository[ChunkRow]):
    model = ChunkRow
    noun = "chunk"
    by_project = False

    async def store(self, rows: Sequence[Json]) -> None:
        """Inserts chunks; those that are there already (same id) are left as they are."""
        for start in range(0, len(rows), 500):
            await self.session.execute(
                insert(ChunkRow).on_conflict_do_nothing(), list(rows[start : start + 500])
            )

    async def of_version(self, version_id: UUID) -> list[ChunkRow]:
        statement = self.visible().where(ChunkRow.document_version_id == version_id)
        return await self.many(statement.order_by(ChunkRow.ordinal))

    async def in_collection(
        self, collection_id: UUID, *, after: UUID | None, limit: int
    ) -> list[StoredChunk]:
        """Chunks of a collection's documents in id order, `limit` at a time; none of deleted documents."""
        statement = select(
            ChunkRow.id,
            ChunkRow.text,
            func.coalesce(DocumentVersion.title, Document.title),
            DocumentVersion.parsed_metadata["language"].astext,
        ).where(
            *(table.org_id == self.tenant.org_id for table in (ChunkRow, DocumentVersion, Document)),
            DocumentVersion.id == ChunkRow.document_version_id,
            Document.id == ChunkRow.document_id,
            Document.project_id == self.tenant.project,
            Document.collection_id == collection_id,
            Document.deleted_at.is_(None),
        )
        if after is not None:
            statement = statement.where(ChunkRow.id > after)
        rows = await self.session.execute(statement.order_by(ChunkRow.id).limit(limit))
        return [StoredChunk(*row) for row in rows]

    async def erase_version(self, version_id: UUID) -> None:
        await self.session.execute(
            delete(ChunkRow).where(
                ChunkRow.org_id == self.tenant.org_id, ChunkRow.document_version_id == version_id
            )
        )
