"""Collections: made with a pipeline and an empty live index, listed, deleted with all that is in them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from uuid import UUID

import rfc8785
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug, slugify
from app.db.postgres.models.jobs import JobKind, WorkKind
from app.db.postgres.models.rag import (
    Collection,
    DocumentStatus,
    IndexStatus,
    IndexVersion,
    RAGPipeline,
    RAGPipelineVersion,
)
from app.db.postgres.repositories.base import contains
from app.db.postgres.repositories.rag import Collections, Documents, Indexes, Pipelines, PipelineVersions
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Tenant
from app.rag.pipeline.defaults import INGESTION
from app.rag.types import Embedder

DEFAULT_PIPELINE = "default-ingestion"


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """A collection with how many documents are in which state, and its live index."""

    collection: Collection
    documents: dict[DocumentStatus, int]
    index: IndexVersion


@dataclass(slots=True)
class CollectionService:
    """Works in the caller's transaction."""

    session: AsyncSession
    tenant: Tenant
    embedder: Embedder

    async def create(self, name: str, *, slug: str | None = None, description: str = "") -> CollectionStats:
        """`Conflict` where the slug is taken."""
        pipeline = await self._default_pipeline()
        collection = Collection(
            org_id=self.tenant.org_id,
            id=new_id(),
            project_id=self.tenant.project,
            slug=check_slug(slug) if slug else slugify(name),
            name=name,
            description=description,
            pipeline_version_id=pipeline.id,
        )
        await Collections(self.session, self.tenant).add(
            collection, duplicate=f"There is a collection {collection.slug!r} already; choose another slug."
        )
        index = IndexVersion(
            org_id=self.tenant.org_id,
            id=new_id(),
            collection_id=collection.id,
            status=IndexStatus.LIVE,
            store="pgvector",
            embedding_model=self.embedder.name,
            dimensions=self.embedder.dimensions,
        )
        await Indexes(self.session, self.tenant).add(index)
        return CollectionStats(collection, {}, index)

    async def get(self, reference: str) -> CollectionStats:
        collection = await Collections(self.session, self.tenant).find(reference)
        return await self._stats(collection)

    async def page(self, request: PageRequest, *, q: str | None = None) -> Page[Collection]:
        """`q` is looked for in names and slugs."""
        collections = Collections(self.session, self.tenant)
        statement = collections.visible()
        if q is not None:
            statement = statement.where(contains(q, Collection.name, Collection.slug))
        return await collections.page(request, statement)

    async def delete(self, reference: str) -> UUID:
        """Hides the collection at once and answers the job that erases what is in it."""
        collections = Collections(self.session, self.tenant)
        collection = await collections.find(reference, lock=True)
        await collections.hide(collection)
        job = await Jobs(self.session, self.tenant).open(JobKind.ERASE_COLLECTION, collection.id)
        items = WorkItems(self.session, self.tenant)
        await items.queue(WorkKind.ERASE_COLLECTION, collection.id, job_id=job.id)
        return job.id

    async def _stats(self, collection: Collection) -> CollectionStats:
        documents = await Documents(self.session, self.tenant).statuses(collection.id)
        index = (await Indexes(self.session, self.tenant).live([collection.id]))[0]
        return CollectionStats(collection, documents, index)

    async def _default_pipeline(self) -> RAGPipelineVersion:
        """The project's default ingestion pipeline, made when it is first needed."""
        pipelines = Pipelines(self.session, self.tenant)
        versions = PipelineVersions(self.session, self.tenant)
        pipeline = await pipelines.ensure(
            RAGPipeline(
                org_id=self.tenant.org_id,
                id=new_id(),
                project_id=self.tenant.project,
                slug=DEFAULT_PIPELINE,
                name="Default ingestion",
                kind="ingestion",
                draft=INGESTION,
            )
        )
        newest = await versions.newest(pipeline.id)
        if newest is not None:
            return newest
        return await versions.add(
            RAGPipelineVersion(
                org_id=self.tenant.org_id,
                id=new_id(),
                pipeline_id=pipeline.id,
                version=1,
                document=INGESTION,
                content_hash=hashlib.sha256(rfc8785.dumps(INGESTION)).hexdigest(),
            )
        )
