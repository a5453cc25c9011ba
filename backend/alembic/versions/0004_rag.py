"""Pipelines, collections, index versions, documents, versions, chunks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import tenant_wall

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

TABLES = [
    "rag_pipelines",
    "rag_pipeline_versions",
    "collections",
    "index_versions",
    "documents",
    "document_versions",
    "chunks",
]


def upgrade() -> None:
    op.create_table(
        "rag_pipelines",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("draft", postgresql.JSONB(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_rag_pipelines_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_rag_pipelines"),
        sa.UniqueConstraint("org_id", "project_id", "slug", name="uq_rag_pipelines_org_id_project_id_slug"),
    )
    op.create_table(
        "rag_pipeline_versions",
        sa.Column("pipeline_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("document", postgresql.JSONB(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "pipeline_id"],
            ["rag_pipelines.org_id", "rag_pipelines.id"],
            name="fk_rag_pipeline_versions_org_id_pipeline_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_rag_pipeline_versions"),
        sa.UniqueConstraint(
            "org_id",
            "pipeline_id",
            "version",
            name="uq_rag_pipeline_versions_org_id_pipeline_id_version",
        ),
    )
    op.create_table(
        "collections",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("pipeline_version_id", sa.Uuid(), nullable=False),
        sa.Column("deleted_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "pipeline_version_id"],
            ["rag_pipeline_versions.org_id", "rag_pipeline_versions.id"],
            name="fk_collections_org_id_pipeline_version_id",
            ondelete="RESTRICT",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_collections_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_collections"),
    )
    op.create_index(
        "uq_collections_slug",
        "collections",
        ["org_id", "project_id", "slug"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "documents",
        sa.Column("collection_id", sa.Uuid(), nullable=False),
        sa.Column("external_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("media_type", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "accepted",
                "parsing",
                "chunking",
                "embedding",
                "indexing",
                "ready",
                "failed",
                "cancelled",
                name="documentstatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("newest_version_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=True),
        sa.Column("chunk_count", sa.Integer(), nullable=False),
        sa.Column("page_count", sa.Integer(), nullable=True),
        sa.Column("language", sa.Text(), nullable=True),
        sa.Column("deleted_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column(
            "updated_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "collection_id"],
            ["collections.org_id", "collections.id"],
            name="fk_documents_org_id_collection_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_documents_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_documents"),
    )
    op.create_index("ix_documents_list", "documents", ["org_id", "collection_id", "id"], unique=False)
    op.create_index(
        "uq_documents_external",
        "documents",
        ["org_id", "collection_id", "external_id"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    op.create_table(
        "index_versions",
        sa.Column("collection_id", sa.Uuid(), nullable=False),
        sa.Column(
            "status",
            sa.Enum("building", "live", "retired", name="indexstatus", native_enum=False, length=32),
            nullable=False,
        ),
        sa.Column("store", sa.Text(), nullable=False),
        sa.Column("embedding_model", sa.Text(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("average_length", sa.Float(), nullable=True),
        sa.Column("chunk_count", sa.BigInteger(), nullable=False),
        sa.Column("term_total", sa.BigInteger(), nullable=False),
        sa.Column("languages", postgresql.JSONB(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "collection_id"],
            ["collections.org_id", "collections.id"],
            name="fk_index_versions_org_id_collection_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_index_versions"),
    )
    op.create_index(
        "uq_index_versions_live",
        "index_versions",
        ["org_id", "collection_id"],
        unique=True,
        postgresql_where=sa.text("status = 'live'"),
    )
    op.create_table(
        "document_versions",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("file_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("pipeline_version_id", sa.Uuid(), nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("blocks", postgresql.JSONB(), nullable=True),
        sa.Column("parsed_metadata", postgresql.JSONB(), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "document_id"],
            ["documents.org_id", "documents.id"],
            name="fk_document_versions_org_id_document_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "file_id"],
            ["files.org_id", "files.id"],
            name="fk_document_versions_org_id_file_id",
            ondelete="RESTRICT",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_document_versions"),
        sa.UniqueConstraint(
            "org_id", "document_id", "ordinal", name="uq_document_versions_org_id_document_id_ordinal"
        ),
    )
    op.create_table(
        "chunks",
        sa.Column("document_id", sa.Uuid(), nullable=False),
        sa.Column("document_version_id", sa.Uuid(), nullable=False),
        sa.Column("pipeline_version_id", sa.Uuid(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("start_offset", sa.Integer(), nullable=False),
        sa.Column("end_offset", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=True),
        sa.Column("heading_path", postgresql.JSONB(), nullable=False),
        sa.Column("token_count", sa.Integer(), nullable=False),
        sa.Column("page_starts", postgresql.JSONB(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "document_id"],
            ["documents.org_id", "documents.id"],
            name="fk_chunks_org_id_document_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "document_version_id"],
            ["document_versions.org_id", "document_versions.id"],
            name="fk_chunks_org_id_document_version_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_chunks"),
        sa.UniqueConstraint("org_id", "document_version_id", "ordinal", name="uq_chunks_ordinal"),
    )
    op.create_index("ix_chunks_document", "chunks", ["org_id", "document_id"], unique=False)
    op.create_index("ix_document_versions_file", "document_versions", ["org_id", "file_id"])
    op.create_index("ix_index_versions_collection", "index_versions", ["org_id", "collection_id"])
    for statement in _walls():
        op.execute(statement)


def _walls() -> list[str]:
    return [statement for table in TABLES for statement in tenant_wall(table)]


def downgrade() -> None:
    op.drop_index("ix_chunks_document", table_name="chunks")
    op.drop_table("chunks")
    op.drop_table("document_versions")
    op.drop_index(
        "uq_index_versions_live", table_name="index_versions", postgresql_where=sa.text("status = 'live'")
    )
    op.drop_table("index_versions")
    op.drop_index(
        "uq_documents_external", table_name="documents", postgresql_where=sa.text("deleted_at IS NULL")
    )
    op.drop_index("ix_documents_list", table_name="documents")
    op.drop_table("documents")
    op.drop_table("collections")
    op.drop_table("rag_pipeline_versions")
    op.drop_table("rag_pipelines")
