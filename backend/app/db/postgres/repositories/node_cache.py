"""Results of nodes: found, kept, and gone with their time, their project's room, or a document."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.postgres.models.node_cache import CachedNode
from app.db.postgres.models.rag import Document
from app.db.session import Tenant

_SWEPT_AT_ONCE = 1000
_KEEP = text(
    """
    INSERT INTO agent_node_cache
        (org_id, id, project_id, agent_id, value, size, document_ids, created_at, expires_at)
    VALUES (:org, :id, :project, :agent, CAST(:value AS jsonb), :size, :documents, now(),
        now() + make_interval(secs => :ttl_s))
    ON CONFLICT (org_id, id) DO UPDATE SET value = excluded.value, size = excluded.size,
        document_ids = excluded.document_ids, created_at = excluded.created_at,
        expires_at = excluded.expires_at
    """
)
_TRIM = text(
    """
    DELETE FROM agent_node_cache WHERE org_id = :org AND id IN (
        SELECT id FROM (
            SELECT id, sum(size) OVER (ORDER BY created_at DESC, id DESC) AS up_to
            FROM agent_node_cache WHERE org_id = :org AND project_id = :project
        ) newest WHERE up_to > :most
    )
    """
)


@dataclass(frozen=True, slots=True)
class CachedNodes:
    """Results of one project's nodes; `forget` those of an organization."""

    session: AsyncSession
    tenant: Tenant

    async def find(self, row_id: UUID) -> dict[str, Any] | None:
        statement = select(CachedNode.value).where(
            CachedNode.org_id == self.tenant.org_id,
            CachedNode.project_id == self.tenant.project,
            CachedNode.id == row_id,
            CachedNode.expires_at > func.now(),
        )
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def keep(
        self, row_id: UUID, agent_id: UUID, value: str, *, documents: frozenset[UUID], ttl_s: float
    ) -> None:
        """Not where a document of it is being deleted: the locks make deleters wait until it can be found."""
        if not await self._are_there(documents):
            return
        values = {
            "org": self.tenant.org_id,
            "id": row_id,
            "project": self.tenant.project,
            "agent": agent_id,
            "value": value,
            "size": len(value),
            "documents": sorted(documents),
            "ttl_s": ttl_s,
        }
        await self.session.execute(_KEEP, values)

    async def trim(self, most: int) -> None:
        """Drops the oldest results beyond `most` characters in all."""
        values = {"org": self.tenant.org_id, "project": self.tenant.project, "most": most}
        await self.session.execute(_TRIM, values)

    async def forget(self, document_id: UUID) -> None:
        """Drops all that holds text of a document."""
        await self.session.execute(
            delete(CachedNode).where(
                CachedNode.org_id == self.tenant.org_id, CachedNode.document_ids.contains([document_id])
            )
        )

    async def _are_there(self, documents: frozenset[UUID]) -> bool:
        statement = (
            select(Document.id)
            .where(
                Document.org_id == self.tenant.org_id,
                Document.id.in_(documents),
                Document.deleted_at.is_(None),
            )
            .order_by(Document.id)
            .with_for_update(read=True)
        )
        return not documents or len((await self.session.execute(statement)).all()) == len(documents)


async def sweep_cache(session: AsyncSession) -> int:
    """Deletes results whose time is over, of every organization; takes a session of `system_work`."""
    due = (
        select(CachedNode.org_id, CachedNode.id)
        .where(CachedNode.expires_at < func.now())
        .limit(_SWEPT_AT_ONCE)
        .cte("due")
    )
    gone = (
        delete(CachedNode)
        .where(CachedNode.org_id == due.c.org_id, CachedNode.id == due.c.id)
        .returning(CachedNode.id)
    )
    return len((await session.execute(gone)).all())
