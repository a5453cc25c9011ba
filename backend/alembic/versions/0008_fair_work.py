"""Work items know their size and how many workers died with them; waiting ones are found by share."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # With defaults: the version before this one inserts items without them.
    number = {"nullable": False, "server_default": sa.text("0")}
    op.add_column("work_items", sa.Column("deaths", sa.Integer(), **number))
    op.add_column("work_items", sa.Column("size_bytes", sa.BigInteger(), **number))
    op.add_column(
        "work_items", sa.Column("alone", sa.Boolean(), nullable=False, server_default=sa.text("false"))
    )
    op.create_index(
        "ix_work_items_waiting",
        "work_items",
        ["queue", "org_id", sa.text("COALESCE(job_id, org_id)"), "due_at", "id"],
        postgresql_where=sa.text("state = 'queued'"),
    )
    op.create_index(
        "ix_work_items_held", "work_items", ["queue"], postgresql_where=sa.text("state = 'running'")
    )
    op.drop_index("ix_work_items_due", table_name="work_items")


def downgrade() -> None:
    op.create_index(
        "ix_work_items_due",
        "work_items",
        ["queue", "due_at"],
        postgresql_where=sa.text("state IN ('queued', 'running')"),
    )
    op.drop_index("ix_work_items_held", table_name="work_items")
    op.drop_index("ix_work_items_waiting", table_name="work_items")
    for column in ("alone", "size_bytes", "deaths"):
        op.drop_column("work_items", column)
