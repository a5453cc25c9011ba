"""The statistics of an index, and its keyword weights, which are encoded again once they no longer fit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import NotFound
from app.core.failpoints import failpoint
from app.db.base import Json
from app.db.postgres.models.jobs import WorkKind, WorkState
from app.db.postgres.models.rag import IndexVersion
from app.db.postgres.repositories.rag import Chunks, Indexes, StoredChunk
from app.db.postgres.repositories.work import Claim, LeaseLost, WorkItems
from app.db.session import Database
from app.rag.indexing import indexed
from app.rag.types import SparseVector, Totals
from app.services.vector_stores import store_in

_MAX_DRIFT = 0.2
_AT_ONCE = 200
_LOOK_AGAIN_S = 5.0


async def count(session: AsyncSession, claim: Claim, index: IndexVersion, change: Totals) -> None:
    """Adds `change` to the statistics of `index`, whose row is locked.

    Where its average length has drifted by that, its re-encoding is queued, which waits for the end of the
    job of `claim`: what comes in one job is re-encoded once.
    """
    index.chunk_count += change.chunks
    index.term_total += change.terms
    await _look(session, claim, index)


async def _look(session: AsyncSession, claim: Claim, index: IndexVersion) -> None:
    items = WorkItems(session, claim.tenant)
    if _drifted(index) and not await items.has_open(index.id, WorkKind.REWEIGH):
        payload: Json = {} if claim.job_id is None else {"job_id": str(claim.job_id)}
        await items.queue(WorkKind.REWEIGH, index.id, payload=payload)


def _average(index: IndexVersion) -> float:
    return max(1.0, index.term_total / max(1, index.chunk_count))


def _drifted(index: IndexVersion) -> bool:
    if not index.chunk_count or not index.average_length:
        return False
    return abs(_average(index) / index.average_length - 1) > _MAX_DRIFT


@dataclass(slots=True)
class IndexService:
    """Handler of the work item `reweigh`."""

    database: Database

    async def reweigh(self, claim: Claim) -> None:
        """Re-encodes the keyword weights of an index whose average length has drifted from its texts.

        The new average holds from the start, so that what is ingested meanwhile is encoded with it, too.
        """
        begun = await self._begin(claim)
        after: UUID | None = None
        while begun is not None:
            async with self.database.unit_of_work(claim.tenant) as session:
                await WorkItems(session, claim.tenant).guard(claim, stage="reweighing")
                rows = await Chunks(session, claim.tenant).in_collection(
                    begun.collection_id, after=after, limit=_AT_ONCE
                )
                weights = await asyncio.to_thread(_weights, rows, _average(begun))
                index = await self._locked(session, claim)
                if not rows:
                    await WorkItems(session, claim.tenant).finish(claim, WorkState.SUCCEEDED)
                    await _look(session, claim, index)  # documents were published meanwhile
                    return
                await store_in(session, claim.tenant, index.id).reweigh(weights)
                after = rows[-1].id
            failpoint("reweigh.stored")

    async def _begin(self, claim: Claim) -> IndexVersion | None:
        """Puts the new average in force; None while the job that brings the texts goes on."""
        async with self.database.unit_of_work(claim.tenant) as session:
            items = WorkItems(session, claim.tenant)
            await items.guard(claim, stage="reweighing")
            job = claim.payload.get("job_id")
            if job is not None and await items.any_open_in(UUID(job)):
                await items.pause(claim, delay_s=_LOOK_AGAIN_S)
                return None
            index = await self._locked(session, claim)
            index.average_length = _average(index)
        failpoint("reweigh.begun")
        return index

    async def _locked(self, session: AsyncSession, claim: Claim) -> IndexVersion:
        try:
            return await Indexes(session, claim.tenant).get(claim.subject_id, lock=True)
        except NotFound as error:
            raise LeaseLost("The index is gone, and its weights with it.") from error


def _weights(rows: Sequence[StoredChunk], average: float) -> dict[UUID, SparseVector]:
    """Computes; for a thread."""
    return {row.id: indexed(row.title, row.text, row.language).sparse(average) for row in rows}
