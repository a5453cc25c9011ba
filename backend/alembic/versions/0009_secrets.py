"""Secrets, the data keys of organizations, and what the installation keeps for itself."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import system_wall, tenant_wall

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TIME = postgresql.TIMESTAMP(timezone=True)


def _now(name: str) -> sa.Column[object]:
    return sa.Column(name, _TIME, server_default=sa.text("now()"), nullable=False)


def upgrade() -> None:
    op.create_table(
        "installation_keys",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("master_id", sa.Uuid(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.PrimaryKeyConstraint("name", name="pk_installation_keys"),
    )
    op.create_table(
        "organization_keys",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("master_id", sa.Uuid(), nullable=False),
        sa.Column("wrapped", sa.LargeBinary(), nullable=False),
        sa.Column("retired_at", _TIME, nullable=True),
        _now("created_at"),
        sa.ForeignKeyConstraint(
            ["org_id"], ["organizations.id"], name="fk_organization_keys_org_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_organization_keys"),
    )
    op.create_index(
        "uq_organization_keys_active",
        "organization_keys",
        ["org_id"],
        unique=True,
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_index("ix_organization_keys_master_id", "organization_keys", ["master_id"])
    op.create_table(
        "secrets",
        sa.Column("org_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("project_id", sa.Uuid(), nullable=False),
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("hint", sa.Text(), nullable=True),
        sa.Column("key_id", sa.Uuid(), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("value_changed_at", _TIME, nullable=False),
        sa.Column("revision", sa.Integer(), server_default="1", nullable=False),
        _now("created_at"),
        _now("updated_at"),
        sa.ForeignKeyConstraint(
            ["org_id", "project_id"],
            ["projects.org_id", "projects.id"],
            name="fk_secrets_org_id_project_id",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["org_id", "key_id"],
            ["organization_keys.org_id", "organization_keys.id"],
            name="fk_secrets_org_id_key_id",
            ondelete="NO ACTION",
        ),
        sa.PrimaryKeyConstraint("org_id", "id", name="pk_secrets"),
        sa.UniqueConstraint("org_id", "project_id", "slug", name="uq_secrets_org_id_project_id_slug"),
    )
    op.create_index("ix_secrets_key_id", "secrets", ["org_id", "key_id", "id"])
    for statement in _walls():
        op.execute(statement)


def _walls() -> list[str]:
    """The system role makes, retires and wraps data keys; what they seal it never sees."""
    return [
        *system_wall("installation_keys", "SELECT, INSERT, UPDATE"),
        *tenant_wall("organization_keys", system="SELECT, INSERT, UPDATE"),
        *tenant_wall("secrets"),
    ]


def downgrade() -> None:
    op.drop_table("secrets")
    op.drop_table("organization_keys")
    op.drop_table("installation_keys")
