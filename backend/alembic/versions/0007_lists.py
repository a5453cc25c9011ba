"""Lists by several keys, revisions of what people edit, agents that are erased in the background."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

REVISED = ("projects", "collections", "documents")
PLAIN = {
    "ix_agent_runs_list": ("agent_runs", ["org_id", "project_id", "id"]),
    "ix_agent_runs_agent": ("agent_runs", ["org_id", "agent_id"]),
    "ix_documents_list": ("documents", ["org_id", "collection_id", "id"]),
    "ix_jobs_list": ("jobs", ["org_id", "project_id", "id"]),
}
SORTED = {
    "ix_agent_runs_list": ("agent_runs", ["org_id", "project_id", "created_at", "id"]),
    "ix_agent_runs_agent": ("agent_runs", ["org_id", "agent_id", "created_at", "id"]),
    "ix_documents_list": ("documents", ["org_id", "collection_id", "created_at", "id"]),
    "ix_jobs_list": ("jobs", ["org_id", "project_id", "created_at", "id"]),
}
NEW = {
    "ix_agents_list": ("agents", ["org_id", "project_id", "created_at", "id"]),
    "ix_agents_name": ("agents", ["org_id", "project_id", "name", "id"]),
    "ix_collections_list": ("collections", ["org_id", "project_id", "created_at", "id"]),
    "ix_collections_name": ("collections", ["org_id", "project_id", "name", "id"]),
    "ix_projects_name": ("projects", ["org_id", "name", "id"]),
    "ix_documents_title": ("documents", ["org_id", "collection_id", sa.text("substr(title, 1, 200)"), "id"]),
}


def upgrade() -> None:
    for table in REVISED:
        op.add_column(table, sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
    op.add_column("projects", _moment("updated_at"))
    op.add_column("work_items", _moment("queued_at"))
    op.add_column("agents", sa.Column("deleted_at", postgresql.TIMESTAMP(timezone=True)))
    op.drop_constraint("uq_agents_org_id_project_id_slug", "agents")
    op.create_index(
        "uq_agents_slug",
        "agents",
        ["org_id", "project_id", "slug"],
        unique=True,
        postgresql_where=sa.text("deleted_at IS NULL"),
    )
    _replace(SORTED)
    for name, (table, columns) in NEW.items():
        op.create_index(name, table, columns)


def _moment(name: str) -> sa.Column[object]:
    return sa.Column(
        name, postgresql.TIMESTAMP(timezone=True), server_default=sa.text("now()"), nullable=False
    )


def _replace(indexes: dict[str, tuple[str, list[str]]]) -> None:
    for name, (table, columns) in indexes.items():
        op.drop_index(name, table_name=table)
        op.create_index(name, table, columns)


def downgrade() -> None:
    for name, (table, _) in NEW.items():
        op.drop_index(name, table_name=table)
    _replace(PLAIN)
    op.execute("DELETE FROM agents WHERE deleted_at IS NOT NULL")
    op.drop_index("uq_agents_slug", table_name="agents")
    op.create_unique_constraint(
        "uq_agents_org_id_project_id_slug", "agents", ["org_id", "project_id", "slug"]
    )
    op.drop_column("agents", "deleted_at")
    op.drop_column("work_items", "queued_at")
    op.drop_column("projects", "updated_at")
    for table in REVISED:
        op.drop_column(table, "revision")
