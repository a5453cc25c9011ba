"""People's sessions (global): families of refresh tokens, and attempts to log in."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.core.ids import new_id
from app.db.base import Base, CreatedAt


class SessionEnd(StrEnum):
    """Why a session ended before its time."""

    LOGOUT = "logout"
    REVOKED = "revoked"
    REUSE = "reuse"
    PASSWORD = "password"  # noqa: S105  (the reason, not one)
    SURPLUS = "surplus"


class UserSession(Base):
    """One login of a user to one organization: all refresh tokens that follow from it, and their access.

    `expires_at` moves with each refresh, up to a limit. Global: reachable through the system role only.
    """

    __tablename__ = "user_sessions"
    __table_args__ = (Index(None, "user_id"),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    organization_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"))
    user_agent: Mapped[str]
    address_hint: Mapped[str]
    browser: Mapped[bool]
    created_at: Mapped[CreatedAt]
    last_used_at: Mapped[CreatedAt]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[SessionEnd | None]


class RefreshToken(Base):
    """A refresh token as its keyed hash. Used ones stay for a while, to be known again."""

    __tablename__ = "refresh_tokens"
    __table_args__ = (Index(None, "session_id"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    session_id: Mapped[UUID] = mapped_column(ForeignKey("user_sessions.id", ondelete="CASCADE"))
    created_at: Mapped[CreatedAt]
    used_at: Mapped[datetime | None]


class LoginAttempts(Base):
    """How much has been tried lately under one digest: when all of it is forgiven (see the repository)."""

    __tablename__ = "login_attempts"
    __table_args__ = (Index(None, "forgiven_at"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    forgiven_at: Mapped[datetime]
