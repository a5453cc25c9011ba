"""Collections of documents, addressed by id or slug."""

from __future__ import annotations

from fastapi import APIRouter

from app.api.dependencies import CollectionsDep, PageDep, allow
from app.api.schemas.common import PageRead
from app.api.schemas.rag import CollectionCreate, CollectionRead, IndexRead, JobStarted
from app.core.permissions import Permission
from app.services.collection_service import CollectionStats

router = APIRouter(prefix="/collections", tags=["collections"])


def _read(stats: CollectionStats) -> CollectionRead:
    row = stats.collection
    return CollectionRead(
        id=row.id,
        slug=row.slug,
        name=row.name,
        description=row.description,
        documents={status.value: count for status, count in stats.documents.items()},
        index=IndexRead.model_validate(stats.index),
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


@router.post(
    "",
    status_code=201,
    operation_id="collections_create",
    dependencies=[allow(Permission.COLLECTIONS_WRITE)],
)
async def create(body: CollectionCreate, collections: CollectionsDep) -> CollectionRead:
    """Without a slug, one is made of the name."""
    return _read(await collections.create(body.name, slug=body.slug, description=body.description))


@router.get("", operation_id="collections_list", dependencies=[allow(Permission.COLLECTIONS_READ)])
async def list_(page: PageDep, collections: CollectionsDep) -> PageRead[CollectionRead]:
    found = await collections.page(page)
    return PageRead(items=[_read(stats) for stats in found.items], next_cursor=found.next_cursor)


@router.get(
    "/{collection}", operation_id="collections_get", dependencies=[allow(Permission.COLLECTIONS_READ)]
)
async def get(collection: str, collections: CollectionsDep) -> CollectionRead:
    return _read(await collections.get(collection))


@router.delete(
    "/{collection}",
    status_code=202,
    operation_id="collections_delete",
    dependencies=[allow(Permission.COLLECTIONS_WRITE)],
)
async def delete(collection: str, collections: CollectionsDep) -> JobStarted:
    """Hidden at once; the job erases its documents everywhere."""
    return JobStarted(job_id=await collections.delete(collection))
