"""Erasure: what was deleted is removed from every store, and looked for afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.core.blobs import Blobs
from app.core.constants import INGEST_QUEUE
from app.core.errors import Unavailable
from app.core.failpoints import failpoint
from app.db.postgres.models.jobs import WorkKind, WorkState
from app.db.postgres.models.rag import Document
from app.db.postgres.repositories.agents import Agents, Runs
from app.db.postgres.repositories.idempotency import IdempotencyKeys
from app.db.postgres.repositories.node_cache import CachedNodes
from app.db.postgres.repositories.rag import Collections, Documents, Files, Indexes, Versions
from app.db.postgres.repositories.work import Claim, WorkItems
from app.db.session import Database, wake_after
from app.services.index_service import count
from app.services.vector_stores import store_in

_AT_ONCE = 100


@dataclass(slots=True)
class ErasureService:
    """Handlers of `erase_document`, `…_collection`, `…_agent`, `…_blob`, `…_upload`. Each may be repeated."""

    database: Database
    blobs: Blobs

    async def erase_document(self, claim: Claim) -> None:
        """Vectors first, until none is left, then blobs, then rows: nothing can point at what is gone."""
        async with self.database.unit_of_work(claim.tenant) as session:
            document = await Documents(session, claim.tenant).tombstoned(claim.subject_id)
            await WorkItems(session, claim.tenant).guard(claim, stage="vectors")
            await CachedNodes(session, claim.tenant).forget(claim.subject_id)
            if document is not None:
                for index in await Indexes(session, claim.tenant).of(document.collection_id, lock=True):
                    store = store_in(session, claim.tenant, index.id)
                    await count(session, claim, index, await store.hide(document.id))
                    left = await store.remove(document.id)
                    if left:
                        raise Unavailable(f"{left} vectors of document {document.id} are still stored.")
                versions = await Versions(session, claim.tenant).of(document.id)
                files = [await Files(session, claim.tenant).get(version.file_id) for version in versions]
                failpoint("erase.hiding")
        failpoint("erase.hidden")
        if document is not None:
            for file in files:
                await self.blobs.delete(file.blob_key)
        failpoint("erase.blobs_gone")
        async with self.database.unit_of_work(claim.tenant) as session:
            if document is not None:
                await Documents(session, claim.tenant).erase(document.id)
                for file in files:
                    await Files(session, claim.tenant).erase(file.id)
                await IdempotencyKeys(session, claim.tenant).forget(document.id)
            await WorkItems(session, claim.tenant).finish(claim, WorkState.SUCCEEDED)
            failpoint("erase.ending")
        failpoint("erase.ended")

    async def erase_collection(self, claim: Claim) -> None:
        """Queues the erasure of each document, waits for the last, then erases the collection's own rows."""
        async with self.database.unit_of_work(claim.tenant) as session:
            items = WorkItems(session, claim.tenant)
            await items.guard(claim, stage="documents")
            left = await Documents(session, claim.tenant).hidden_in(claim.subject_id, limit=_AT_ONCE)
            for document in left:
                await self._queue_document(items, claim, document)
            if not left:
                await Collections(session, claim.tenant).erase(claim.subject_id)
                await IdempotencyKeys(session, claim.tenant).forget(claim.subject_id)
                await items.finish(claim, WorkState.SUCCEEDED)
                return
            await items.pause(claim, delay_s=1)
            wake_after(session, INGEST_QUEUE)
            failpoint("erase.collection")

    async def erase_agent(self, claim: Claim) -> None:
        """Runs with their logs, some at a time, then the agent with its versions."""
        while True:
            async with self.database.unit_of_work(claim.tenant) as session:
                items = WorkItems(session, claim.tenant)
                await items.guard(claim, stage="runs")
                if await Runs(session, claim.tenant).erase_of(claim.subject_id, limit=_AT_ONCE):
                    failpoint("erase.agent")
                    continue
                await Agents(session, claim.tenant).erase(claim.subject_id)
                await IdempotencyKeys(session, claim.tenant).forget(claim.subject_id)
                await items.finish(claim, WorkState.SUCCEEDED)
                return

    async def erase_blob(self, claim: Claim) -> None:
        await self.blobs.delete(claim.payload["blob_key"])
        failpoint("erase.blob_gone")
        async with self.database.unit_of_work(claim.tenant) as session:
            await WorkItems(session, claim.tenant).finish(claim, WorkState.SUCCEEDED)

    async def erase_upload(self, claim: Claim) -> None:
        """Deletes the bytes of an upload that nobody registered: its request ended or died on the way."""
        folder = claim.payload["folder"]
        stored = {key: UUID(key.rsplit("/", 1)[-1]) for key in await self.blobs.under(folder)}
        async with self.database.unit_of_work(claim.tenant) as session:
            # Under our claim no request can register them any more.
            await WorkItems(session, claim.tenant).guard(claim, stage="blobs")
            registered = await Files(session, claim.tenant).known(list(stored.values()))
        for key, file_id in stored.items():
            if file_id not in registered:
                await self.blobs.delete(key)
        await self.blobs.drop_staged(folder)
        failpoint("erase.upload_gone")
        async with self.database.unit_of_work(claim.tenant) as session:
            await WorkItems(session, claim.tenant).finish(claim, WorkState.SUCCEEDED)

    async def _queue_document(self, items: WorkItems, claim: Claim, document: Document) -> None:
        if await items.has_open(document.id, WorkKind.ERASE_DOCUMENT):
            return
        await items.cancel_open([document.id])
        await items.queue(WorkKind.ERASE_DOCUMENT, document.id, job_id=claim.job_id)
