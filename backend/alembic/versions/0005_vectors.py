"""The pgvector store: entries, list-partitioned on the index version, and document frequencies of terms."""

from alembic import op

from app.db.walls import tenant_wall

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ENTRIES = """
CREATE TABLE vector_entries (
    org_id uuid NOT NULL,
    index_id uuid NOT NULL,
    chunk_id uuid NOT NULL,
    document_id uuid NOT NULL,
    document_version_id uuid NOT NULL,
    visible boolean NOT NULL,
    text_hash bytea NOT NULL,
    term_count integer NOT NULL,
    terms integer[] NOT NULL,
    dense vector NOT NULL,
    sparse sparsevec(1000000000) NOT NULL,
    payload jsonb NOT NULL,
    CONSTRAINT pk_vector_entries PRIMARY KEY (org_id, index_id, chunk_id),
    CONSTRAINT fk_vector_entries_index FOREIGN KEY (org_id, index_id)
        REFERENCES index_versions (org_id, id) ON DELETE CASCADE
) PARTITION BY LIST (index_id)
"""
TERMS = """
CREATE TABLE vector_terms (
    org_id uuid NOT NULL,
    index_id uuid NOT NULL,
    term integer NOT NULL,
    documents bigint NOT NULL,
    CONSTRAINT pk_vector_terms PRIMARY KEY (org_id, index_id, term),
    CONSTRAINT fk_vector_terms_index FOREIGN KEY (org_id, index_id)
        REFERENCES index_versions (org_id, id) ON DELETE CASCADE
)
"""


def upgrade() -> None:
    op.execute("CREATE EXTENSION IF NOT EXISTS vector")
    op.execute(ENTRIES)
    op.execute("CREATE TABLE vector_entries_default PARTITION OF vector_entries DEFAULT")
    op.execute("ALTER TABLE vector_entries_default SET (toast_tuple_target = 8160)")  # scans read the vectors
    op.execute("CREATE INDEX ix_vector_entries_document ON vector_entries (org_id, document_id)")
    op.execute("CREATE INDEX ix_vector_entries_text_hash ON vector_entries (org_id, index_id, text_hash)")
    op.execute(TERMS)
    for table in ("vector_entries", "vector_terms"):
        for statement in tenant_wall(table):
            op.execute(statement)


def downgrade() -> None:
    op.execute("DROP TABLE vector_terms")
    op.execute("DROP TABLE vector_entries")
