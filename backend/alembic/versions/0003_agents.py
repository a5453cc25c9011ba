"""Agents, versions, runs; steps and events, range-partitioned on the run id."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import tenant_wall

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

PARTITIONS = """
CREATE FUNCTION orrery_ensure_partitions(ahead integer) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public AS $$
DECLARE
    parent text; child text; month timestamp; low uuid; high uuid;
BEGIN
    PERFORM pg_advisory_xact_lock(1869771365, 1);
    FOR i IN 0..ahead LOOP
        month := date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => i);
        low := orrery_uuid7_floor(month);
        high := orrery_uuid7_floor(month + interval '1 month');
        FOREACH parent IN ARRAY ARRAY['agent_run_events', 'agent_run_steps'] LOOP
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
FLOOR = """
CREATE FUNCTION orrery_uuid7_floor(moment timestamp) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0')
        || '70008000000000000000')::uuid
$$
"""


def upgrade() -> None:
    op.create_table(
        "agent_run_events",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("ts", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("node_path", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("event", postgresql.JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "run_id", "seq", name="pk_agent_run_events"),
        postgresql_partition_by="RANGE (run_id)",
    )
    op.create_table(
        "agent_run_steps",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("node_path", sa.Text(), nullable=False),
        sa.Column("visit", sa.Integer(), nullable=False),
        sa.Column("call", sa.Integer(), nullable=False),
        sa.Column("node_type", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("output", postgresql.JSONB(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("usage", postgresql.JSONB(), nullable=True),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("duration_ms", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "run_id", "node_path", "visit", "call", name="pk_agent_run_steps"),
        postgresql_partition_by="RANGE (run_id)",
    )
    op.create_table(
        "agents",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("draft", postgresql.JSONB(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("live_version", sa.Integer(), nullable=True),
        sa.Column("archived_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
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
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_agents_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_agents"),
        sa.UniqueConstraint("org_id", "project_id", "slug", name="uq_agents_org_id_project_id_slug"),
    )
    op.create_table(
        "agent_versions",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("graph", postgresql.JSONB(), nullable=False),
        sa.Column("bindings", postgresql.JSONB(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("author_id", sa.Uuid(), nullable=True),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "agent_id"],
            ["agents.org_id", "agents.id"],
            name="fk_agent_versions_org_id_agent_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_agent_versions"),
        sa.UniqueConstraint(
            "org_id", "agent_id", "version", name="uq_agent_versions_org_id_agent_id_version"
        ),
    )
    op.create_index(
        "uq_agent_versions_snapshot",
        "agent_versions",
        ["org_id", "agent_id", "content_hash"],
        unique=True,
        postgresql_where=sa.text("version IS NULL"),
    )
    op.create_table(
        "agent_runs",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("version_id", sa.Uuid(), nullable=False),
        sa.Column(
            "mode", sa.Enum("wait", "stream", name="runmode", native_enum=False, length=32), nullable=False
        ),
        sa.Column(
            "status",
            sa.Enum(
                "queued",
                "running",
                "succeeded",
                "failed",
                "cancelled",
                name="runstatus",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("input", postgresql.JSONB(), nullable=False),
        sa.Column("output", postgresql.JSONB(), nullable=True),
        sa.Column("error", postgresql.JSONB(), nullable=True),
        sa.Column("usage", postgresql.JSONB(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("lease_owner", sa.Text(), nullable=True),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("fence", sa.BigInteger(), nullable=False),
        sa.Column("last_seq", sa.BigInteger(), nullable=False),
        sa.Column("cancel_requested_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("started_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column(
            "created_at", postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "agent_id"],
            ["agents.org_id", "agents.id"],
            name="fk_agent_runs_org_id_agent_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_agent_runs_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "version_id"],
            ["agent_versions.org_id", "agent_versions.id"],
            name="fk_agent_runs_org_id_version_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_agent_runs"),
    )
    op.create_index("ix_agent_runs_list", "agent_runs", ["org_id", "project_id", "id"], unique=False)
    op.create_index("ix_agent_runs_agent", "agent_runs", ["org_id", "agent_id"])
    op.create_index("ix_agent_runs_version", "agent_runs", ["org_id", "version_id"])
    op.create_index(
        "ix_agent_runs_open",
        "agent_runs",
        ["lease_until"],
        unique=False,
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.execute("CREATE TABLE agent_run_events_default PARTITION OF agent_run_events DEFAULT")
    op.execute("CREATE TABLE agent_run_steps_default PARTITION OF agent_run_steps DEFAULT")
    op.execute(FLOOR)
    op.execute(PARTITIONS)
    op.execute("REVOKE ALL ON FUNCTION orrery_ensure_partitions(integer) FROM PUBLIC")
    op.execute("GRANT EXECUTE ON FUNCTION orrery_ensure_partitions(integer) TO orrery_app")
    op.execute("SELECT orrery_ensure_partitions(2)")
    for statement in _walls():
        op.execute(statement)


def _walls() -> list[str]:
    return [
        *tenant_wall("agents"),
        *tenant_wall("agent_versions"),
        *tenant_wall("agent_runs", system="SELECT, UPDATE"),
        *tenant_wall("agent_run_steps"),
        *tenant_wall("agent_run_events", system="SELECT, INSERT"),
    ]


def downgrade() -> None:
    op.execute("DROP FUNCTION orrery_ensure_partitions(integer)")
    op.execute("DROP FUNCTION orrery_uuid7_floor(timestamp)")
    op.drop_index(
        "ix_agent_runs_open", table_name="agent_runs", postgresql_where=sa.text("finished_at IS NULL")
    )
    op.drop_index("ix_agent_runs_list", table_name="agent_runs")
    op.drop_table("agent_runs")
    op.drop_index(
        "uq_agent_versions_snapshot", table_name="agent_versions", postgresql_where=sa.text("version IS NULL")
    )
    op.drop_table("agent_versions")
    op.drop_table("agents")
    op.drop_table("agent_run_steps")
    op.drop_table("agent_run_events")
