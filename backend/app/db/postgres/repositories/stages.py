"""The statements that each stage of each work item sends, made once: building cost more than sending."""

from __future__ import annotations

from sqlalchemy import Table, bindparam, func, text, update

from app.db.postgres.models.jobs import WorkItem, WorkState
from app.db.postgres.models.rag import Document

_ITEMS: Table = WorkItem.__table__  # type: ignore[assignment]
_DOCUMENTS: Table = Document.__table__  # type: ignore[assignment]

PROLONG = (
    update(_ITEMS)
    .where(
        _ITEMS.c.org_id == bindparam("at_org"),
        _ITEMS.c.id == bindparam("at_id"),
        _ITEMS.c.fence == bindparam("at_fence"),
        _ITEMS.c.state == WorkState.RUNNING,
    )
    .values(
        lease_until=func.now() + text("make_interval(secs => :for_s)"),
        stage=func.coalesce(bindparam("at_stage", type_=_ITEMS.c.stage.type), _ITEMS.c.stage),
        updated_at=func.now(),
    )
    .returning(_ITEMS.c.id)
)
"""Prolongs a held item and shows its stage, if one is given; answers its id, or no row where it is lost."""

SHOW_STATUS = (
    update(_DOCUMENTS)
    .where(
        _DOCUMENTS.c.org_id == bindparam("at_org"),
        _DOCUMENTS.c.id == bindparam("at_id"),
        _DOCUMENTS.c.newest_version_id == bindparam("at_version"),
    )
    .values(
        status=bindparam("is_status", type_=_DOCUMENTS.c.status.type),
        error=bindparam("is_error", type_=_DOCUMENTS.c.error.type),
        updated_at=func.now(),
    )
)
"""Shows how far a document is, if the version is its newest."""
