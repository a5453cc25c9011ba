"""Collections of documents, addressed by id or slug."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import CollectionsDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.rag import (
    ChunkingRead,
    CollectionCreate,
    CollectionRead,
    CollectionSettings,
    CollectionSummary,
    CollectionUpdate,
    IndexRead,
    JobStarted,
)
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.rag import Collections
from app.services.collection_service import CollectionStats

router = native_router("/collections", tag="collections")


def _read(stats: CollectionStats) -> CollectionRead:
    return CollectionRead(
        **CollectionSummary.model_validate(stats.collection).model_dump(),
        documents={status.value: count for status, count in stats.documents.items()},
        index=IndexRead.model_validate(stats.index),
        settings=CollectionSettings(chunking=ChunkingRead.model_validate(stats.chunking)),
    )


@router.post(
    "",
    status_code=201,
    operation_id="collections_create",
    summary="Create a collection",
    dependencies=[allow(Permission.COLLECTIONS_WRITE), idempotent()],
)
async def create(body: CollectionCreate, collections: CollectionsDep, response: Response) -> CollectionRead:
    """Without a slug, one is made of the name."""
    made = await collections.create(body.name, slug=body.slug, description=body.description)
    return tagged(_read(made), response)


@router.get(
    "",
    operation_id="collections_list",
    summary="List collections",
    dependencies=[allow(Permission.COLLECTIONS_READ)],
)
async def list_(
    page: Annotated[PageRequest, paged(Collections)],
    collections: CollectionsDep,
    q: Annotated[str | None, Query(description="Is in the name or the slug, in any case")] = None,
) -> PageRead[CollectionSummary]:
    """Without what is counted: one collection's answer has that."""
    return page_of(await collections.page(page, q=q), CollectionSummary.model_validate)


@router.get(
    "/{collection}",
    operation_id="collections_get",
    summary="Get a collection",
    dependencies=[allow(Permission.COLLECTIONS_READ)],
    response_model=CollectionRead,
    responses=NOT_MODIFIED,
)
async def get(collection: str, collections: CollectionsDep, known: KnownDep) -> Any:
    """By id or slug, with what is in it; 304 where the ETag in `If-None-Match` is current."""
    return unless_known(_read(await collections.get(collection)), known)


@router.patch(
    "/{collection}",
    operation_id="collections_update",
    summary="Update a collection",
    dependencies=[allow(Permission.COLLECTIONS_WRITE)],
)
async def update(
    collection: str,
    body: CollectionUpdate,
    collections: CollectionsDep,
    response: Response,
    revisions: RevisionsDep,
) -> CollectionRead:
    """412 where the collection is at another revision than `If-Match` says."""
    changes = body.model_dump(exclude_unset=True)
    return tagged(_read(await collections.update(collection, changes, revisions=revisions)), response)


@router.delete(
    "/{collection}",
    status_code=202,
    operation_id="collections_delete",
    summary="Delete a collection",
    dependencies=[allow(Permission.COLLECTIONS_WRITE)],
)
async def delete(collection: str, collections: CollectionsDep, revisions: RevisionsDep) -> JobStarted:
    """Hidden at once; the job erases its documents everywhere."""
    return JobStarted(job_id=await collections.delete(collection, revisions=revisions))
