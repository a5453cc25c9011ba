"""Long work: a job for people to watch, and the one work table that workers claim from."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import BigInteger, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db.base import CreatedAt, Json, ProjectRow, UpdatedAt, tenant_key


class WorkKind(StrEnum):
    """What is to be done with an item's subject."""

    INGEST = "ingest"
    REWEIGH = "reweigh"
    ERASE_DOCUMENT = "erase_document"
    ERASE_COLLECTION = "erase_collection"
    ERASE_BLOB = "erase_blob"
    ERASE_UPLOAD = "erase_upload"
    ERASE_AGENT = "erase_agent"


class JobKind(StrEnum):
    """What a job was started for."""

    INGESTION = "ingestion"
    ERASE_DOCUMENT = "erase_document"
    ERASE_COLLECTION = "erase_collection"
    ERASE_AGENT = "erase_agent"


class WorkState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Job(ProjectRow):
    """What one request started. Status and progress are counted from its work items, never stored twice."""

    __tablename__ = "jobs"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        Index("ix_jobs_list", "org_id", "project_id", "created_at", "id"),
    )

    kind: Mapped[str]
    subject_id: Mapped[UUID | None]
    skipped: Mapped[int] = mapped_column(default=0)


class WorkItem(ProjectRow):
    """One unit of work: claimed by `SKIP LOCKED`, held under a lease, written under its fence.

    `size_bytes` says how large it is (0: small), `deaths` how many holders fell silent with it, and `alone`
    that its holder works on nothing beside it.
    `queued_at` is when somebody last asked for it: how long it is tried counts from there.
    """

    __tablename__ = "work_items"
    __table_args__ = (
        tenant_key("project_id", "projects"),
        tenant_key("job_id", "jobs"),
        Index("ix_work_items_job", "org_id", "job_id", "state"),
        Index("ix_work_items_subject", "org_id", "subject_id"),
        Index(  # by share, as `runs/claims.py` defines it
            "ix_work_items_waiting",
            "queue",
            "org_id",
            text("COALESCE(job_id, org_id)"),
            "due_at",
            "id",
            postgresql_where=text("state = 'queued'"),
        ),
        Index("ix_work_items_held", "queue", postgresql_where=text("state = 'running'")),
    )

    queue: Mapped[str]
    kind: Mapped[str]
    job_id: Mapped[UUID | None]
    subject_id: Mapped[UUID]
    payload: Mapped[Json] = mapped_column(default=dict)
    state: Mapped[WorkState] = mapped_column(default=WorkState.QUEUED)
    stage: Mapped[str | None]
    error: Mapped[Json | None]
    attempts: Mapped[int] = mapped_column(default=0)
    deaths: Mapped[int] = mapped_column(default=0)
    alone: Mapped[bool] = mapped_column(default=False)
    size_bytes: Mapped[int] = mapped_column(BigInteger, default=0)
    due_at: Mapped[CreatedAt]
    queued_at: Mapped[CreatedAt]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[datetime | None]
    fence: Mapped[int] = mapped_column(BigInteger, default=0)
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    updated_at: Mapped[UpdatedAt]
