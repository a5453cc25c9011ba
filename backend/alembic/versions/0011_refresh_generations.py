"""Refresh tokens are known by their number: the session's row counts them, in place of a row for each.

Sessions of before end: nothing tells their tokens from made-up ones any more. People log in once more.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

from app.db.walls import system_wall

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    op.drop_table("refresh_tokens")
    op.add_column(
        "user_sessions", sa.Column("generation", sa.BigInteger(), nullable=False, server_default=sa.text("0"))
    )
    op.add_column("user_sessions", sa.Column("refreshed_at", MOMENT, nullable=True))
    _end_sessions()


def _end_sessions() -> None:
    """Without the wall for a moment, which FORCE puts up before the owner, too."""
    op.execute("ALTER TABLE user_sessions NO FORCE ROW LEVEL SECURITY")
    op.execute(
        "UPDATE user_sessions SET ended_at = now(), end_reason = 'revoked' "
        "WHERE ended_at IS NULL AND expires_at > now()"
    )
    op.execute("ALTER TABLE user_sessions FORCE ROW LEVEL SECURITY")


def downgrade() -> None:
    _end_sessions()
    op.drop_column("user_sessions", "refreshed_at")
    op.drop_column("user_sessions", "generation")
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
    for statement in system_wall("refresh_tokens", "SELECT, INSERT, UPDATE, DELETE"):
        op.execute(statement)
