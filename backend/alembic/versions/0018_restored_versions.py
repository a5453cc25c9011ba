"""A version says which earlier one it repeats."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("agent_versions", sa.Column("restores", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("agent_versions", "restores")
