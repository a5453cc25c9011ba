"""Who there is: users and organizations (global), memberships, projects and API keys (per organization)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.ids import new_id
from app.db.base import Base, CreatedAt, Json, Revision, TenantRow, UpdatedAt, tenant_key


class Role(StrEnum):
    OWNER = "owner"
    ADMIN = "admin"
    MEMBER = "member"
    VIEWER = "viewer"


class User(Base):
    """A person. Global: reachable through the system role only."""

    __tablename__ = "users"
    __table_args__ = (Index("uq_users_email", func.lower(text("email")), unique=True),)

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    email: Mapped[str]
    name: Mapped[str] = mapped_column(default="")
    password_hash: Mapped[str | None]
    suspended_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]


class Organization(Base):
    """The tenant. Global: reachable through the system role only."""

    __tablename__ = "organizations"

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    slug: Mapped[str] = mapped_column(unique=True)
    name: Mapped[str]
    created_at: Mapped[CreatedAt]


class Membership(TenantRow):
    """A user's role in an organization."""

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("org_id", "user_id"),)

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    role: Mapped[Role] = mapped_column(default=Role.MEMBER)


class Project(TenantRow):
    __tablename__ = "projects"
    __table_args__ = (
        UniqueConstraint("org_id", "slug"),
        Index("ix_projects_name", "org_id", "name", "id"),
    )

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    slug: Mapped[str]
    name: Mapped[str]
    settings: Mapped[Json] = mapped_column(default=dict)
    revision: Mapped[Revision]
    updated_at: Mapped[UpdatedAt]


class ApiKey(TenantRow):
    """A key as its keyed hash; the secret itself is shown once and never stored.

    `made_by` is the key that asked for this one, where it was a key.
    """

    __tablename__ = "api_keys"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("made_by", "api_keys"),
        UniqueConstraint("digest"),
    )

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID | None]
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    name: Mapped[str]
    hint: Mapped[str]
    digest: Mapped[bytes] = mapped_column(LargeBinary)
    permissions: Mapped[list[str] | None]
    made_by: Mapped[UUID | None]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
