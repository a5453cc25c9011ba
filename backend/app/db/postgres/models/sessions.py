"""People's sessions and attempts to log in (global)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, ForeignKey, Index, LargeBinary
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

    `generation` is the number of its refreshes, and so of the one refresh token that is still unused;
    `refreshed_at` is when the last one was made. `expires_at` moves with each, up to a limit. Global:
    reachable through the system role only.
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
    generation: Mapped[int] = mapped_column(BigInteger, default=0)
    refreshed_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    end_reason: Mapped[SessionEnd | None]


class LoginAttempts(Base):
    """How much has been tried lately under one digest: when all of it is forgiven (see the repository)."""

    __tablename__ = "login_attempts"
    __table_args__ = (Index(None, "forgiven_at"),)

    digest: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    forgiven_at: Mapped[datetime]
