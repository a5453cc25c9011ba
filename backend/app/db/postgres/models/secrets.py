"""Secrets and the keys that they are sealed with (`core.envelope`). No plaintext is stored anywhere."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index, LargeBinary, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import Base, CreatedAt, ProjectRow, Revision, TenantRow, UpdatedAt, tenant_key

_ACTIVE = text("retired_at IS NULL")


class InstallationKey(Base):
    """A secret of the installation itself, by name, wrapped by the master key that is in force.

    Global: reachable through the system role only.
    """

    __tablename__ = "installation_keys"

    name: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[UUID]
    master_id: Mapped[UUID]
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


class OrganizationKey(TenantRow):
    """A data key. At most one is active; retired ones exist only while a rotation is under way."""

    __tablename__ = "organization_keys"
    __table_args__ = (
        Index("uq_organization_keys_active", "org_id", unique=True, postgresql_where=_ACTIVE),
        Index("ix_organization_keys_master_id", "master_id"),
    )

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    master_id: Mapped[UUID]
    wrapped: Mapped[bytes] = mapped_column(LargeBinary)
    retired_at: Mapped[datetime | None]


class Secret(ProjectRow):
    """A credential that tools, model connections and nodes name by its slug.

    `sealed` is read only where it is asked for. While any is sealed with a key, the key cannot be deleted.
    """

    __tablename__ = "secrets"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("key_id", "organization_keys", ondelete="NO ACTION"),
        UniqueConstraint("org_id", "project_id", "slug"),
        Index("ix_secrets_key_id", "org_id", "key_id", "id"),
    )

    slug: Mapped[str]
    description: Mapped[str] = mapped_column(default="")
    hint: Mapped[str | None]
    key_id: Mapped[UUID]
    sealed: Mapped[bytes] = mapped_column(LargeBinary, deferred=True, deferred_raiseload=True)
    value_changed_at: Mapped[datetime]
    revision: Mapped[Revision]
    updated_at: Mapped[CreatedAt]
