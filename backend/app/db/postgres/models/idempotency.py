"""What requests with an `Idempotency-Key` did: written in the transaction of the effect itself."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from sqlalchemy import ForeignKey, Index
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column
from sqlalchemy.types import Uuid

from app.db.base import Json, TenantRow, tenant_key


class IdempotencyKey(TenantRow):
    """A request that had its effect. `id` is the UUIDv5 of caller, project, route and key.

    `body` is None where the answer is not kept: it is made of `subject_id`, or it was forgotten.
    `mentions` are the ids in the body, so that erasing one of these rows finds it.
    """

    __tablename__ = "idempotency_keys"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        Index("ix_idempotency_keys_expires", "expires_at"),
        Index("ix_idempotency_keys_mentions", "mentions", postgresql_using="gin"),
    )

    org_id: Mapped[UUID] = mapped_column(ForeignKey("organizations.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID | None]
    principal: Mapped[UUID]
    method: Mapped[str]
    path: Mapped[str]
    key: Mapped[str]
    digest: Mapped[bytes]
    status: Mapped[int | None]
    headers: Mapped[Json]
    body: Mapped[bytes | None]
    subject_id: Mapped[UUID | None]
    mentions: Mapped[list[UUID]] = mapped_column(ARRAY(Uuid))
    expires_at: Mapped[datetime]
