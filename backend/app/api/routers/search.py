"""Search over collections."""

from __future__ import annotations

from app.api.dependencies import RagDep, allow
from app.api.idempotency import without_key
from app.api.native import native_router
from app.api.schemas.rag import SearchItem, SearchRead, SearchRequest
from app.core.permissions import Permission
from app.services.rag_service import GroupBy, Query, Result, SearchMode

router = native_router("/search", tag="search")


@router.post(
    "",
    operation_id="search",
    summary="Search collections",
    dependencies=[allow(Permission.SEARCH), without_key("it only reads")],
)
async def search(body: SearchRequest, rag: RagDep) -> SearchRead:
    """Best first. Scores compare within one answer only."""
    query = Query(
        text=body.query,
        collections=body.collections,
        mode=SearchMode(body.mode),
        top_k=body.top_k,
        group_by=GroupBy(body.group_by),
    )
    return SearchRead(items=[_read(result) for result in await rag.search(query)])


def _read(result: Result) -> SearchItem:
    found = result.found
    return SearchItem(
        score=result.score,
        chunk_id=found.id,
        document_id=found.document_id,
        external_id=found.external_id,
        title=found.title,
        text=found.text,
        page=found.page,
        start=found.start,
        end=found.end,
        metadata=found.metadata,
    )
