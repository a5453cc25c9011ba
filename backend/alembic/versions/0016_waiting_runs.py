"""Runs that wait are found by organization; commands of ended runs can be swept."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_agent_runs_waiting",
        "agent_runs",
        ["org_id", "created_at", "id"],
        postgresql_where=sa.text("finished_at IS NULL AND lease_until IS NULL"),
    )
    op.create_index(
        "ix_agent_runs_leased",
        "agent_runs",
        ["lease_until"],
        postgresql_where=sa.text("finished_at IS NULL AND lease_until IS NOT NULL"),
    )
    op.drop_index("ix_agent_runs_open", table_name="agent_runs")
    op.execute("GRANT DELETE ON agent_run_commands TO orrery_system")


def downgrade() -> None:
    op.execute("REVOKE DELETE ON agent_run_commands FROM orrery_system")
    op.create_index(
        "ix_agent_runs_open",
        "agent_runs",
        ["lease_until"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.drop_index("ix_agent_runs_leased", table_name="agent_runs")
    op.drop_index("ix_agent_runs_waiting", table_name="agent_runs")
