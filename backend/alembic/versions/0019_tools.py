"""Tools with what they offer, approval and revisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)
_EMPTY_LIST = sa.text("'[]'::jsonb")


def upgrade() -> None:
    """No release has written rows of this table yet, so what it had and nobody needs can go."""
    op.drop_column("tool_registry", "input_schema")
    op.drop_column("tool_registry", "name")
    for name in ("operations", "unusable"):
        column = sa.Column(name, postgresql.JSONB(), server_default=_EMPTY_LIST, nullable=False)
        op.add_column("tool_registry", column)
    approval = sa.Enum("never", "writes", "always", name="toolapproval", native_enum=False, length=32)
    op.add_column("tool_registry", sa.Column("approval", approval, server_default="never", nullable=False))
    op.add_column("tool_registry", sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
    updated_at = sa.Column("updated_at", _TIME, server_default=sa.text("now()"), nullable=False)
    op.add_column("tool_registry", updated_at)


def downgrade() -> None:
    for name in ("updated_at", "revision", "approval", "unusable", "operations"):
        op.drop_column("tool_registry", name)
    op.add_column("tool_registry", sa.Column("name", sa.Text(), server_default="", nullable=False))
    op.add_column(
        "tool_registry",
        sa.Column("input_schema", postgresql.JSONB(), server_default=sa.text("'{}'::jsonb"), nullable=False),
    )
