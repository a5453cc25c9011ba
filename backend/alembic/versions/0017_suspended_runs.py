"""Runs that wait for people and times, and runs made of others."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import tenant_wall

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)
_NOT_LEASED = "finished_at IS NULL AND lease_until IS NULL"


def upgrade() -> None:
    op.add_column("agent_runs", sa.Column("due_at", _TIME, nullable=True))
    op.add_column("agent_runs", sa.Column("answers", sa.Integer(), server_default="0", nullable=False))
    op.add_column("agent_runs", sa.Column("parent_run_id", sa.Uuid(), nullable=True))
    op.add_column("agent_runs", sa.Column("made_by", sa.String(length=32), nullable=True))
    op.add_column("agent_runs", sa.Column("effects_of", sa.Uuid(), nullable=True))
    op.add_column("agent_run_steps", sa.Column("request_hash", sa.Text(), nullable=True))
    op.add_column("agent_run_steps", sa.Column("source_run_id", sa.Uuid(), nullable=True))
    op.drop_index("ix_agent_runs_waiting", table_name="agent_runs")
    op.create_index(
        "ix_agent_runs_waiting",
        "agent_runs",
        ["org_id", "created_at", "id"],
        postgresql_where=sa.text(f"{_NOT_LEASED} AND due_at IS NULL"),
    )
    op.create_index(
        "ix_agent_runs_due",
        "agent_runs",
        ["due_at"],
        postgresql_where=sa.text("finished_at IS NULL AND due_at IS NOT NULL"),
    )
    op.create_index("ix_agent_runs_parent", "agent_runs", ["org_id", "parent_run_id"])
    _create_interrupts()


def _create_interrupts() -> None:
    op.create_table(
        "agent_run_interrupts",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("node_path", sa.Text(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("status", sa.String(length=32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("choices", postgresql.JSONB(), nullable=True),
        sa.Column("form", postgresql.JSONB(), nullable=True),
        sa.Column("prefill", postgresql.JSONB(), nullable=True),
        sa.Column("assignee", sa.Text(), nullable=True),
        sa.Column("tool", sa.Text(), nullable=True),
        sa.Column("tool_call_id", sa.Text(), nullable=True),
        sa.Column("due_at", _TIME, nullable=True),
        sa.Column("choice", sa.Text(), nullable=True),
        sa.Column("data", postgresql.JSONB(), nullable=True),
        sa.Column("answered_by", sa.Text(), nullable=True),
        sa.Column("closed_at", _TIME, nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_agent_run_interrupts_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "run_id"],
            ["agent_runs.org_id", "agent_runs.id"],
            name="fk_agent_run_interrupts_org_id_run_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_agent_run_interrupts"),
    )
    op.create_index("ix_agent_run_interrupts_run", "agent_run_interrupts", ["org_id", "run_id"])
    op.create_index(
        "ix_agent_run_interrupts_list",
        "agent_run_interrupts",
        ["org_id", "project_id", "status", "created_at", "id"],
    )
    for statement in tenant_wall("agent_run_interrupts", system="SELECT, INSERT, UPDATE"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("agent_run_interrupts")
    op.drop_index("ix_agent_runs_parent", table_name="agent_runs")
    op.drop_index("ix_agent_runs_due", table_name="agent_runs")
    op.drop_index("ix_agent_runs_waiting", table_name="agent_runs")
    op.create_index(
        "ix_agent_runs_waiting",
        "agent_runs",
        ["org_id", "created_at", "id"],
        postgresql_where=sa.text(_NOT_LEASED),
    )
    for column in ("request_hash", "source_run_id"):
        op.drop_column("agent_run_steps", column)
    for column in ("due_at", "answers", "parent_run_id", "made_by", "effects_of"):
        op.drop_column("agent_runs", column)
