"""Results of nodes, by what they were asked."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import tenant_wall

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "agent_node_cache",
        sa.Column("agent_id", sa.Uuid(), nullable=False),
        sa.Column("value", postgresql.JSONB(), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("document_ids", postgresql.ARRAY(sa.Uuid()), nullable=False),
        sa.Column("expires_at", _TIME, nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("created_at", _TIME, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_agent_node_cache_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "agent_id"],
            ["agents.org_id", "agents.id"],
            name="fk_agent_node_cache_org_id_agent_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_agent_node_cache"),
    )
    op.create_index("ix_agent_node_cache_expires", "agent_node_cache", ["expires_at"])
    op.create_index(
        "ix_agent_node_cache_project", "agent_node_cache", ["org_id", "project_id", "created_at", "id"]
    )
    op.create_index("ix_agent_node_cache_agent", "agent_node_cache", ["org_id", "agent_id"])
    op.create_index(
        "ix_agent_node_cache_documents", "agent_node_cache", ["document_ids"], postgresql_using="gin"
    )
    for statement in tenant_wall("agent_node_cache", system="SELECT, DELETE"):
        op.execute(statement)


def downgrade() -> None:
    op.drop_table("agent_node_cache")
