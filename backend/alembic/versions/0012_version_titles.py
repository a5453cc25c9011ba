"""Versions of documents know the title that their chunks are indexed under."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("document_versions", sa.Column("title", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("document_versions", "title")
