"""Connections to model providers; logical models by connection, with revisions."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import tenant_wall

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, _TIME, server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "model_connections",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("base_url", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=True),
        sa.Column("key_changed_at", _TIME, nullable=True),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_model_connections_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "key_id"],
            ["organization_keys.org_id", "organization_keys.id"],
            name="fk_model_connections_org_id_key_id",
            ondelete="NO ACTION",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_model_connections"),
        sa.UniqueConstraint(
            "org_id", "project_id", "slug", name="uq_model_connections_org_id_project_id_slug"
        ),
    )
    op.create_index("ix_model_connections_key_id", "model_connections", ["org_id", "key_id", "id"])
    for statement in tenant_wall("model_connections"):
        op.execute(statement)
    op.add_column("model_registry", sa.Column("description", sa.Text(), server_default="", nullable=False))
    op.add_column("model_registry", sa.Column("connection_id", sa.Uuid(), nullable=True))
    op.add_column("model_registry", sa.Column("revision", sa.Integer(), server_default="1", nullable=False))
    op.add_column("model_registry", _now("updated_at"))
    op.create_foreign_key(
        "fk_model_registry_org_id_connection_id",
        "model_registry",
        "model_connections",
        ["org_id", "connection_id"],
        ["org_id", "id"],
        ondelete="NO ACTION",
    )
    op.create_index("ix_model_registry_connection_id", "model_registry", ["org_id", "connection_id"])


def downgrade() -> None:
    op.drop_index("ix_model_registry_connection_id", table_name="model_registry")
    op.drop_constraint("fk_model_registry_org_id_connection_id", "model_registry", type_="foreignkey")
    for column in ("updated_at", "revision", "connection_id", "description"):
        op.drop_column("model_registry", column)
    op.drop_table("model_connections")
