"""People's sessions with their refresh tokens, attempts to log in, and who made an API key."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import system_wall

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.create_table(
        "user_sessions",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("organization_id", sa.Uuid(), nullable=False),
        sa.Column("user_agent", sa.Text(), nullable=False),
        sa.Column("address_hint", sa.Text(), nullable=False),
        sa.Column("browser", sa.Boolean(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("last_used_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.Column(
            "end_reason",
            sa.Enum(
                "logout",
                "revoked",
                "reuse",
                "password",
                "surplus",
                name="sessionend",
                native_enum=False,
                length=32,
            ),
            nullable=True,
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name="fk_user_sessions_user_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["organization_id"],
            ["organizations.id"],
            name="fk_user_sessions_organization_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_user_sessions"),
    )
    op.create_index("ix_user_sessions_user_id", "user_sessions", ["user_id"])
    op.create_table(
        "refresh_tokens",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("session_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", MOMENT, server_default=sa.text("now()"), nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["session_id"], ["user_sessions.id"], name="fk_refresh_tokens_session_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_refresh_tokens"),
    )
    op.create_index("ix_refresh_tokens_session_id", "refresh_tokens", ["session_id"])
    op.create_table(
        "login_attempts",
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("forgiven_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="pk_login_attempts"),
    )
    op.create_index("ix_login_attempts_forgiven_at", "login_attempts", ["forgiven_at"])
    for table in ("user_sessions", "refresh_tokens", "login_attempts"):
        for statement in system_wall(table, "SELECT, INSERT, UPDATE, DELETE"):
            op.execute(statement)
    op.add_column("api_keys", sa.Column("made_by", sa.Uuid(), nullable=True))
    op.create_foreign_key(
        "fk_api_keys_org_id_made_by",
        "api_keys",
        "api_keys",
        ["org_id", "made_by"],
        ["org_id", "id"],
        ondelete="CASCADE",
    )


def downgrade() -> None:
    op.drop_constraint("fk_api_keys_org_id_made_by", "api_keys", type_="foreignkey")
    op.drop_column("api_keys", "made_by")
    op.drop_table("login_attempts")
    op.drop_table("refresh_tokens")
    op.drop_table("user_sessions")
