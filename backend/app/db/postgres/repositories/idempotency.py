"""Idempotency keys: found before an effect, written with it, forgotten with what they speak of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Table, delete, func, insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.db.postgres.models.idempotency import IdempotencyKey
from app.db.session import Tenant

_KEYS: Table = IdempotencyKey.__table__  # type: ignore[assignment]
_LOCK = text("SELECT pg_try_advisory_xact_lock(:key)")
_INT8 = 2**63
_SWEPT_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class IdempotencyKeys:
    """Keys of one organization, on the connection whose transaction has (or had) the effect."""

    connection: AsyncConnection | AsyncSession
    tenant: Tenant

    async def lock(self, row_id: UUID) -> bool:
        """Takes the key until the transaction ends, however it ends; False where another one has it.

        Locks are 64 bits wide: two keys that share one wait for each other, no more.
        """
        return bool((await self.connection.execute(_LOCK, {"key": row_id.int % _INT8})).scalar_one())

    async def find(self, row_id: UUID) -> Row[*tuple[Any, ...]] | None:
        """The row while it has not expired. After `lock`, nobody can write one meanwhile."""
        statement = select(
            _KEYS.c.digest, _KEYS.c.status, _KEYS.c.headers, _KEYS.c.body, _KEYS.c.subject_id
        ).where(self._is(row_id), _KEYS.c.expires_at > func.now())
        return (await self.connection.execute(statement)).one_or_none()

    async def add(self, row_id: UUID, *, retention_s: float, **columns: Any) -> None:
        """Written once: what has expired gives way, anything else breaks the primary key."""
        await self.connection.execute(delete(_KEYS).where(self._is(row_id), _KEYS.c.expires_at <= func.now()))
        expires_at = func.now() + func.make_interval(0, 0, 0, 0, 0, 0, retention_s)
        own = {"org_id": self.tenant.org_id, "project_id": self.tenant.project_id, "id": row_id}
        await self.connection.execute(insert(_KEYS).values(expires_at=expires_at, **own, **columns))

    async def forget(self, subject_id: UUID) -> None:
        """Drops answers that speak of what is erased. The keys stay: no effect may happen again."""
        mentions = _KEYS.c.mentions.contains([subject_id])
        await self.connection.execute(
            update(_KEYS)
            .where(_KEYS.c.org_id == self.tenant.org_id, mentions)
            .values(body=None, headers={}, mentions=[], subject_id=None)
        )

    def _is(self, row_id: UUID) -> Any:
        return (_KEYS.c.org_id == self.tenant.org_id) & (_KEYS.c.id == row_id)


async def sweep_expired(session: AsyncSession) -> int:
    """Deletes keys past their retention, of every organization; takes a session of `system_work`."""
    due = (
        select(_KEYS.c.org_id, _KEYS.c.id)
        .where(_KEYS.c.expires_at < func.now())
        .limit(_SWEPT_AT_ONCE)
        .cte("due")
    )
    gone = delete(_KEYS).where(_KEYS.c.org_id == due.c.org_id, _KEYS.c.id == due.c.id).returning(_KEYS.c.id)
    return len((await session.execute(gone)).all())
