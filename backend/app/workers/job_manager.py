"""What a worker process does with the work table: the handler of each kind of item, and the draining."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from app.core.config import Settings
from app.core.failpoints import failpoint
from app.db.postgres.models.jobs import WorkKind
from app.db.session import Wake
from app.resources import Resources, open_resources
from app.services.erasure_service import ErasureService
from app.services.index_service import IndexService
from app.services.ingestion_service import IngestionService
from app.services.job_service import Drain
from app.services.runs.leases import ITEMS, release_owner

logger = structlog.get_logger(__name__)


def make_drain(resources: Resources, owner: str) -> Drain:
    settings = resources.settings
    ingestion = IngestionService(
        resources.database,
        resources.blobs,
        resources.parse,
        resources.embedder,
        batch_size=settings.ingest_batch_chunks,
    )
    erasure = ErasureService(resources.database, resources.blobs)
    return Drain(
        database=resources.database,
        handlers={
            WorkKind.INGEST: ingestion.ingest,
            WorkKind.REWEIGH: IndexService(resources.database).reweigh,
            WorkKind.ERASE_DOCUMENT: erasure.erase_document,
            WorkKind.ERASE_COLLECTION: erasure.erase_collection,
            WorkKind.ERASE_AGENT: erasure.erase_agent,
            WorkKind.ERASE_BLOB: erasure.erase_blob,
            WorkKind.ERASE_UPLOAD: erasure.erase_upload,
        },
        failed=ingestion.failed,
        owner=owner,
        lease_s=settings.lease_s,
        concurrency=settings.ingest_concurrency,
        max_attempts=settings.ingest_max_attempts,
        patience_s=settings.ingest_patience_s,
        isolation_s=settings.ingest_isolation_s,
        large_bytes=settings.ingest_large_bytes,
        endless=frozenset(set(WorkKind) - {WorkKind.INGEST}),
    )


@asynccontextmanager
async def open_drain(
    settings: Settings, *, database_url: str, redis_url: str, wake: Wake, owner: str
) -> AsyncIterator[Drain]:
    """A worker's drain. `owner` names one worker slot: what its dead predecessor held is free at once."""
    async with open_resources(
        settings, database_url=database_url, redis_url=redis_url, wake=wake, owner=owner
    ) as resources:
        released = await release_owner(resources.database, ITEMS, owner)
        if released:
            logger.info("leases_taken_over", items=released)
        failpoint("lease.released")
        yield make_drain(resources, owner)
