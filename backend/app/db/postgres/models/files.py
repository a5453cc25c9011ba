"""Uploaded bytes: where they lie in blob storage and what they are."""

from __future__ import annotations

from sqlalchemy import BigInteger, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import ProjectRow, tenant_key


class File(ProjectRow):
    """`blob_key` is made by the server; `name` is only ever shown, never used as a path."""

    __tablename__ = "files"
    __table_args__ = (tenant_key("project_id", "projects"),)

    name: Mapped[str]
    media_type: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    blob_key: Mapped[str]
