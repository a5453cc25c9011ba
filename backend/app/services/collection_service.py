"""Collections: made with a pipeline and an empty live index, changed, deleted with all that is in them."""

from __future__ import annotations

import hashlib
from collections.abc import Collection as Collected
from dataclasses import dataclass
from uuid import UUID

import rfc8785
from sqlalchemy import func
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import FieldError, Invalid
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.slugs import check_slug, slugify
from app.db.base import Json
from app.db.postgres.models.jobs import JobKind, WorkKind
from app.db.postgres.models.rag import (
    Collection,
    DocumentStatus,
    IndexStatus,
    IndexVersion,
    RAGPipeline,
    RAGPipelineVersion,
)
from app.db.postgres.repositories.listing import contains
from app.db.postgres.repositories.rag import (
    Collections,
    Documents,
    Indexes,
    Pipelines,
    PipelineVersions,
    own_pipeline,
)
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.db.session import Tenant
from app.rag.components.chunker import SentenceChunker
from app.rag.pipeline.compiler import InvalidPipeline, compile_ingestion
from app.rag.pipeline.defaults import INGESTION, with_chunking
from app.rag.types import Embedder

DEFAULT_PIPELINE = "default-ingestion"


@dataclass(frozen=True, slots=True)
class CollectionStats:
    """A collection with how many documents are in which state, its live index, and how it cuts texts."""

    collection: Collection
    documents: dict[DocumentStatus, int]
    index: IndexVersion
    chunking: SentenceChunker


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
        return CollectionStats(collection, {}, index, compile_ingestion(pipeline.document).chunker)

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

    async def update(
        self, reference: str, changes: Json, *, revisions: Collected[int] | None = None
    ) -> CollectionStats:
        """Changes `name`, `description` (None empties it) or `settings`; only if at one of `revisions`.

        Settings hold for what is ingested from now on; what is there stays as it was cut.
        """
        collections = Collections(self.session, self.tenant)
        collection = await collections.find(reference, lock=True)
        collections.demand_revision(collection, revisions)
        collection.name = changes.get("name", collection.name)
        collection.description = changes.get("description", collection.description) or ""
        chunking = changes.get("settings", {}).get("chunking")
        if chunking:
            collection.pipeline_version_id = await self._rechunked(collection, chunking)
        collection.revision += 1
        collection.updated_at = func.now()
        await self.session.flush()
        await self.session.refresh(collection)
        return await self._stats(collection)

    async def delete(self, reference: str, *, revisions: Collected[int] | None = None) -> UUID:
        """Hides the collection at once, if at one of `revisions`; answers the job that erases all in it."""
        collections = Collections(self.session, self.tenant)
        collection = await collections.find(reference, lock=True)
        collections.demand_revision(collection, revisions)
        await collections.hide(collection)
        job = await Jobs(self.session, self.tenant).open(JobKind.ERASE_COLLECTION, collection.id)
        items = WorkItems(self.session, self.tenant)
        await items.queue(WorkKind.ERASE_COLLECTION, collection.id, job_id=job.id)
        return job.id

    async def _stats(self, collection: Collection) -> CollectionStats:
        documents = await Documents(self.session, self.tenant).statuses(collection.id)
        index = (await Indexes(self.session, self.tenant).live([collection.id]))[0]
        pipeline = await PipelineVersions(self.session, self.tenant).get(collection.pipeline_version_id)
        return CollectionStats(collection, documents, index, compile_ingestion(pipeline.document).chunker)

    async def _rechunked(self, collection: Collection, changes: Json) -> UUID:
        """A version of the collection's own pipeline that differs from the one in use by `changes`."""
        versions = PipelineVersions(self.session, self.tenant)
        current = await versions.get(collection.pipeline_version_id)
        document = with_chunking(current.document, changes)
        try:
            compile_ingestion(document)
        except InvalidPipeline as error:
            errors = [FieldError("/body/settings/chunking", one.code, one.message) for one in error.errors]
            raise Invalid(error.errors[0].message, errors=errors) from error
        if document == current.document:
            return current.id
        pipelines = Pipelines(self.session, self.tenant)
        pipeline = await pipelines.ensure(
            RAGPipeline(
                org_id=self.tenant.org_id,
                id=new_id(),
                project_id=self.tenant.project,
                slug=own_pipeline(collection.id),
                name=f"Ingestion of {collection.name}",
                kind="ingestion",
                draft=document,
            )
        )
        newest = await versions.newest(pipeline.id)
        version = await self._add_version(pipeline, document, (newest.version if newest else 0) + 1)
        return version.id

    async def _add_version(self, pipeline: RAGPipeline, document: Json, number: int) -> RAGPipelineVersion:
        return await PipelineVersions(self.session, self.tenant).add(
            RAGPipelineVersion(
                org_id=self.tenant.org_id,
                id=new_id(),
                pipeline_id=pipeline.id,
                version=number,
                document=document,
                content_hash=hashlib.sha256(rfc8785.dumps(document)).hexdigest(),
            )
        )

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
        return await self._add_version(pipeline, INGESTION, 1)
