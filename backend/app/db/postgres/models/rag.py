"""Pipelines, collections, documents with versions and chunks, and index versions."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Float, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Json, ProjectRow, Revision, TenantRow, UpdatedAt, tenant_key

TITLE_KEY = "substr(title, 1, 200)"
"""What lists of documents are sorted by: a title may be longer than an index entry."""


class DocumentStatus(StrEnum):
    """How far the newest version of a document is.

    Most documents go from `embedding` to `ready` at once. `indexing` is seen where publishing has to wait
    (for others in the collection, or for weights that are encoded again) or failed and is tried again.
    """

    ACCEPTED = "accepted"
    PARSING = "parsing"
    CHUNKING = "chunking"
    EMBEDDING = "embedding"
    INDEXING = "indexing"
    READY = "ready"
    FAILED = "failed"
    CANCELLED = "cancelled"


class IndexStatus(StrEnum):
    BUILDING = "building"
    LIVE = "live"
    RETIRED = "retired"


class RAGPipeline(ProjectRow):
    """A declarative pipeline; `kind` is `ingestion` or `query`."""

    __tablename__ = "rag_pipelines"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        UniqueConstraint("org_id", "project_id", "slug"),
    )

    slug: Mapped[str]
    name: Mapped[str]
    kind: Mapped[str]
    draft: Mapped[Json]
    revision: Mapped[int] = mapped_column(default=1)


class RAGPipelineVersion(TenantRow):
    """An immutable pipeline document; its id is stamped on every chunk it made."""

    __tablename__ = "rag_pipeline_versions"
    __table_args__ = (
        tenant_key("pipeline_id", "rag_pipelines"),
        UniqueConstraint("org_id", "pipeline_id", "version"),
    )

    pipeline_id: Mapped[UUID]
    version: Mapped[int]
    document: Mapped[Json]
    content_hash: Mapped[str]


class Collection(ProjectRow):
    """Documents that are ingested by one pipeline version and searched together."""

    __tablename__ = "collections"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("pipeline_version_id", "rag_pipeline_versions", ondelete="RESTRICT"),
        Index("ix_collections_list", "org_id", "project_id", "created_at", "id"),
        Index("ix_collections_name", "org_id", "project_id", "name", "id"),
        Index(
            "uq_collections_slug",
            "org_id",
            "project_id",
            "slug",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
    )

    slug: Mapped[str]
    name: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    pipeline_version_id: Mapped[UUID]
    revision: Mapped[Revision]
    deleted_at: Mapped[datetime | None]
    updated_at: Mapped[UpdatedAt]


class IndexVersion(TenantRow):
    """One build of a collection's index. `average_length` (BM25, in terms) is fixed by its first batch."""

    __tablename__ = "index_versions"
    __table_args__ = (
        tenant_key("collection_id", "collections"),
        Index("ix_index_versions_collection", "org_id", "collection_id"),
        Index(
            "uq_index_versions_live",
            "org_id",
            "collection_id",
            unique=True,
            postgresql_where=text("status = 'live'"),
        ),
    )

    collection_id: Mapped[UUID]
    status: Mapped[IndexStatus]
    store: Mapped[str]
    embedding_model: Mapped[str]
    dimensions: Mapped[int]
    average_length: Mapped[float | None] = mapped_column(Float)
    chunk_count: Mapped[int] = mapped_column(BigInteger, default=0)
    term_total: Mapped[int] = mapped_column(BigInteger, default=0)
    languages: Mapped[list[str]] = mapped_column(default=list)


class Document(ProjectRow):
    """A document as its owner knows it. `version_id` is the version that is searched, once one is ready."""

    __tablename__ = "documents"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("collection_id", "collections"),
        Index(
            "uq_documents_external",
            "org_id",
            "collection_id",
            "external_id",
            unique=True,
            postgresql_where=text("deleted_at IS NULL"),
        ),
        Index("ix_documents_list", "org_id", "collection_id", "created_at", "id"),
        Index("ix_documents_title", "org_id", "collection_id", text(TITLE_KEY), "id"),
    )

    collection_id: Mapped[UUID]
    external_id: Mapped[str]
    name: Mapped[str]
    title: Mapped[str]
    media_type: Mapped[str | None]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[DocumentStatus] = mapped_column(default=DocumentStatus.ACCEPTED)
    error: Mapped[Json | None]
    doc_metadata: Mapped[Json] = mapped_column("metadata", default=dict)
    newest_version_id: Mapped[UUID]
    version_id: Mapped[UUID | None]
    chunk_count: Mapped[int] = mapped_column(default=0)
    page_count: Mapped[int | None]
    language: Mapped[str | None]
    revision: Mapped[Revision]
    deleted_at: Mapped[datetime | None]
    updated_at: Mapped[UpdatedAt]


class DocumentVersion(TenantRow):
    """One content of a document: its bytes (`file_id`), the text parsed from them, and its blocks.

    `title` is indexed with each chunk; None stands for the document's, and before parsing for none yet.
    `text` and `blocks` are large: `Versions.whole` loads them, nothing else does.
    """

    __tablename__ = "document_versions"
    __table_args__ = (
        tenant_key("document_id", "documents"),
        tenant_key("file_id", "files", ondelete="RESTRICT"),
        UniqueConstraint("org_id", "document_id", "ordinal"),
        Index("ix_document_versions_file", "org_id", "file_id"),
    )

    document_id: Mapped[UUID]
    file_id: Mapped[UUID]
    ordinal: Mapped[int]
    content_hash: Mapped[bytes] = mapped_column(LargeBinary)
    pipeline_version_id: Mapped[UUID]
    title: Mapped[str | None]
    text: Mapped[str | None] = mapped_column(deferred=True, deferred_raiseload=True)
    blocks: Mapped[list[Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    parsed_metadata: Mapped[Json | None]


class ChunkRow(TenantRow):
    """`text == version.text[start_offset:end_offset]`; the id is the UUIDv5 of version, pipeline, ordinal.

    `page` is that of the start; `page_starts` are [offset, page] of pages that begin inside.
    """

    __tablename__ = "chunks"
    __table_args__ = (
        tenant_key("document_id", "documents"),
        tenant_key("document_version_id", "document_versions"),
        UniqueConstraint("org_id", "document_version_id", "ordinal", name="uq_chunks_ordinal"),
        Index("ix_chunks_document", "org_id", "document_id"),
    )

    document_id: Mapped[UUID]
    document_version_id: Mapped[UUID]
    pipeline_version_id: Mapped[UUID]
    ordinal: Mapped[int]
    text: Mapped[str]
    start_offset: Mapped[int]
    end_offset: Mapped[int]
    page: Mapped[int | None]
    heading_path: Mapped[list[str]]
    token_count: Mapped[int]
    page_starts: Mapped[list[Any]] = mapped_column(default=list)
