"""Runs that outlive their process: what recovery reads, commands, checkpoints."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import tenant_wall

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

LOGS = ["agent_run_events", "agent_run_steps"]
CHECKPOINTS = ["agent_run_checkpoints", "agent_run_checkpoint_writes"]
PARTITIONS = """
CREATE OR REPLACE FUNCTION orrery_ensure_partitions(ahead integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    parent text; child text; month timestamp; low uuid; high uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(1869771365, 1);
    FOR i IN 0..ahead LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i);
        low := orrery_uuid7_floor(month);
        high := orrery_uuid7_floor(month + interval '1 month');
        FOREACH parent IN ARRAY ARRAY[{parents}] LOOP
            child := parent || '_' || to_char(month, 'YYYYMM');
            CONTINUE WHEN to_regclass('public.' || child) IS NOT NULL;
            BEGIN
                EXECUTE format('CREATE TABLE public.%I PARTITION OF public.%I FOR VALUES FROM (%L) TO (%L)',
                               child, parent, low, high);
            EXCEPTION WHEN check_violation THEN
                RAISE WARNING 'rows of % already lie in the default partition', child;
            END;
        END LOOP;
    END LOOP;
END $$
"""


def _partitions(parents: list[str]) -> str:
    return PARTITIONS.replace("{parents}", ", ".join(f"'{parent}'" for parent in parents))


def upgrade() -> None:
    op.add_column("agent_runs", sa.Column("recoveries", sa.Integer(), server_default="0", nullable=False))
    op.add_column("agent_run_steps", sa.Column("handle", sa.Text(), nullable=True))
    op.add_column("agent_run_steps", sa.Column("writes", postgresql.JSONB(), nullable=True))
    op.execute("ALTER TABLE agent_run_events ALTER COLUMN event TYPE json USING event::json")
    _create_checkpoints()
    _create_commands()
    op.drop_column("agent_runs", "cancel_requested_at")
    op.execute(_partitions([*LOGS, *CHECKPOINTS]))
    op.execute("SELECT orrery_ensure_partitions(2)")
    for statement in _walls():
        op.execute(statement)
    op.execute("CREATE POLICY system_rows ON agent_run_steps TO orrery_system USING (true) WITH CHECK (true)")
    op.execute("GRANT SELECT, INSERT, UPDATE ON agent_run_steps TO orrery_system")


def _create_checkpoints() -> None:
    op.create_table(
        "agent_run_checkpoints",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("ns", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("parent_id", sa.Text(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("channels", sa.LargeBinary(), nullable=False),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.PrimaryKeyConstraint("org_id", "run_id", "ns", "id", name="pk_agent_run_checkpoints"),
        postgresql_partition_by="RANGE (run_id)",
    )
    op.create_table(
        "agent_run_checkpoint_writes",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("ns", sa.Text(), nullable=False),
        sa.Column("checkpoint_id", sa.Text(), nullable=False),
        sa.Column("task_id", sa.Text(), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("task_path", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint(
            *("org_id", "run_id", "ns", "checkpoint_id", "task_id", "idx"),
            name="pk_agent_run_checkpoint_writes",
        ),
        postgresql_partition_by="RANGE (run_id)",
    )
    for table in CHECKPOINTS:
        op.execute(f"CREATE TABLE {table}_default PARTITION OF {table} DEFAULT")


def _create_commands() -> None:
    op.create_table(
        "agent_run_commands",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("consumed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "run_id"],
            ["agent_runs.org_id", "agent_runs.id"],
            name="fk_agent_run_commands_org_id_run_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_agent_run_commands"),
    )
    op.create_index("ix_agent_run_commands_run", "agent_run_commands", ["org_id", "run_id"])


def _walls() -> list[str]:
    return [
        *tenant_wall("agent_run_checkpoints", system="SELECT, INSERT, UPDATE"),
        *tenant_wall("agent_run_checkpoint_writes", system="SELECT, INSERT, UPDATE"),
        *tenant_wall("agent_run_commands", system="SELECT, UPDATE"),
    ]


def downgrade() -> None:
    op.execute("REVOKE ALL ON agent_run_steps FROM orrery_system")
    op.execute("DROP POLICY system_rows ON agent_run_steps")
    op.execute(_partitions(LOGS))
    op.add_column(
        "agent_runs",
        sa.Column("cancel_requested_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
    )
    op.execute("ALTER TABLE agent_run_events ALTER COLUMN event TYPE jsonb USING event::jsonb")
    op.drop_table("agent_run_commands")
    for table in CHECKPOINTS:
        op.drop_table(table)
    op.drop_column("agent_run_steps", "writes")
    op.drop_column("agent_run_steps", "handle")
    op.drop_column("agent_runs", "recoveries")
