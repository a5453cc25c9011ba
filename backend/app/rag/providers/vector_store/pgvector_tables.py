"""The pgvector store's own tables: entries (vectors and filter payload) and terms (document frequencies)."""

from __future__ import annotations

from pgvector.sqlalchemy import SPARSEVEC, VECTOR
from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Uuid,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

SPARSE_DIMENSIONS = 1_000_000_000

metadata = MetaData()

entries = Table(
    "vector_entries",
    metadata,
    Column("org_id", Uuid, nullable=False),
    Column("index_id", Uuid, nullable=False),
    Column("chunk_id", Uuid, nullable=False),
    Column("document_id", Uuid, nullable=False),
    Column("document_version_id", Uuid, nullable=False),
    Column("visible", Boolean, nullable=False),
    Column("text_hash", LargeBinary, nullable=False),
    Column("term_count", Integer, nullable=False),
    Column("terms", ARRAY(Integer), nullable=False),
    Column("dense", VECTOR, nullable=False),
    Column("sparse", SPARSEVEC(SPARSE_DIMENSIONS), nullable=False),
    Column("payload", JSONB, nullable=False),
    PrimaryKeyConstraint("org_id", "index_id", "chunk_id"),
    Index("ix_vector_entries_document", "org_id", "document_id"),
    Index("ix_vector_entries_text_hash", "org_id", "index_id", "text_hash"),
    postgresql_partition_by="LIST (index_id)",
)

terms = Table(
    "vector_terms",
    metadata,
    Column("org_id", Uuid, nullable=False),
    Column("index_id", Uuid, nullable=False),
    Column("term", Integer, nullable=False),
    Column("documents", BigInteger, nullable=False),
    PrimaryKeyConstraint("org_id", "index_id", "term"),
)
