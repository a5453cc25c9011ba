"""Documents: taken in by upload or as text, watched, read back, deleted everywhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

from fastapi import Query, Request, Response
from fastapi.responses import StreamingResponse

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import DocumentsDep, IntakeDep, ResourcesDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.common import ItemError, PageRead, page_of
from app.api.schemas.rag import (
    AcceptedRead,
    DocumentRead,
    DocumentSummary,
    DocumentTextRead,
    DocumentUpdate,
    JobStarted,
    TakenRead,
    TextItem,
    TextItems,
)
from app.api.uploads import FORM, uploaded
from app.core.constants import API_PREFIX
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.models.rag import DocumentStatus
from app.db.postgres.repositories.rag import Documents
from app.services.document_service import DocumentFilters
from app.services.intake_service import Accepted, Incoming

router = native_router(tag="documents")
intake_router = native_router("/collections/{collection}/documents", tag="documents")


@intake_router.post(
    "",
    status_code=202,
    operation_id="documents_upload",
    summary="Upload files",
    openapi_extra=FORM,
    dependencies=[allow(Permission.DOCUMENTS_WRITE), idempotent(late=True)],
)
async def upload(
    collection: str, request: Request, intake: IntakeDep, resources: ResourcesDep
) -> AcceptedRead:
    """Takes files in. What comes back `accepted` will end `ready` or `failed` with a reason."""
    async with uploaded(request, resources.settings.max_upload_files) as incoming:
        return _accepted(await intake.accept(collection, incoming))


@router.post(
    "/collections/{collection}/documents/text",
    status_code=202,
    operation_id="documents_add_text",
    summary="Add texts",
    dependencies=[allow(Permission.DOCUMENTS_WRITE), idempotent(late=True)],
)
async def add_text(collection: str, body: TextItems, intake: IntakeDep) -> AcceptedRead:
    """Takes texts in, as if each were a file."""
    return _accepted(await intake.accept(collection, _texts(body.items)))


@router.get(
    "/collections/{collection}/documents",
    operation_id="documents_list",
    summary="List documents",
    dependencies=[allow(Permission.DOCUMENTS_READ)],
)
async def list_(
    collection: str,
    page: Annotated[PageRequest, paged(Documents)],
    documents: DocumentsDep,
    status: Annotated[list[DocumentStatus] | None, Query(description="Repeat it for any of several")] = None,
    external_id: str | None = None,
    q: Annotated[str | None, Query(description="Is in the title or the name, in any case")] = None,
) -> PageRead[DocumentSummary]:
    """Without metadata. Titles are sorted by their first 200 characters."""
    filters = DocumentFilters(statuses=status or (), external_id=external_id, q=q)
    return page_of(await documents.page(collection, page, filters), DocumentSummary.model_validate)


@router.get(
    "/documents/{document_id}",
    operation_id="documents_get",
    summary="Get a document",
    dependencies=[allow(Permission.DOCUMENTS_READ)],
    response_model=DocumentRead,
    responses=NOT_MODIFIED,
)
async def get(document_id: UUID, documents: DocumentsDep, known: KnownDep) -> Any:
    """With status and metadata; 304 where the ETag in `If-None-Match` is current."""
    return unless_known(DocumentRead.model_validate(await documents.get(document_id)), known)


@router.patch(
    "/documents/{document_id}",
    operation_id="documents_update",
    summary="Update a document",
    dependencies=[allow(Permission.DOCUMENTS_WRITE)],
    responses={
        202: {"model": DocumentRead, "description": "A new title is embedded by the job in `Location`"}
    },
)
async def update(
    document_id: UUID,
    body: DocumentUpdate,
    documents: DocumentsDep,
    response: Response,
    revisions: RevisionsDep,
) -> DocumentRead:
    """412 where the document is at another revision than `If-Match` says.

    New metadata is found and shown at once. A new title is shown at once and searched once it is embedded.
    """
    changes = body.model_dump(exclude_unset=True)
    changed, job_id = await documents.update(document_id, changes, revisions=revisions)
    if job_id is not None:
        response.status_code = 202
        response.headers["Location"] = f"{API_PREFIX}/jobs/{job_id}"
    return tagged(DocumentRead.model_validate(changed), response)


@router.get(
    "/documents/{document_id}/text",
    operation_id="documents_text",
    summary="Get the text of a document",
    dependencies=[allow(Permission.DOCUMENTS_READ)],
)
async def text(document_id: UUID, documents: DocumentsDep) -> DocumentTextRead:
    """The parsed text that offsets of chunks and citations count in, and the chunks."""
    return DocumentTextRead.model_validate(await documents.text(document_id))


@router.get(
    "/documents/{document_id}/original",
    operation_id="documents_original",
    summary="Download the original",
    dependencies=[allow(Permission.DOCUMENTS_READ)],
    response_class=StreamingResponse,
)
async def original(document_id: UUID, documents: DocumentsDep) -> StreamingResponse:
    """The bytes as they were handed in, always as a download."""
    file = await documents.original(document_id)
    return StreamingResponse(
        documents.content(file),
        media_type="application/octet-stream",
        headers={
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(file.name)}",
            "Content-Length": str(file.size_bytes),
        },
    )


@router.delete(
    "/documents/{document_id}",
    status_code=202,
    operation_id="documents_delete",
    summary="Delete a document",
    dependencies=[allow(Permission.DOCUMENTS_WRITE)],
)
async def delete(document_id: UUID, documents: DocumentsDep, revisions: RevisionsDep) -> JobStarted:
    """Out of every search at once; the job erases vectors, chunks, bytes and rows."""
    return JobStarted(job_id=await documents.delete(document_id, revisions=revisions))


async def _texts(items: list[TextItem]) -> AsyncIterator[Incoming]:
    for item in items:
        yield Incoming(
            name=f"{item.title}.txt",
            content=_once(item.text),
            media_type="text/plain",
            external_id=item.external_id or item.title,
            title=item.title,
            metadata=item.metadata,
            exactly_text=True,
        )


async def _once(text: str) -> AsyncIterator[bytes]:
    yield text.encode()


def _accepted(accepted: Accepted) -> AcceptedRead:
    return AcceptedRead(
        job_id=accepted.job_id,
        items=[
            TakenRead(
                document_id=one.document_id,
                name=one.incoming.name,
                title=one.incoming.title or one.incoming.name,
                external_id=one.incoming.key,
                status=one.status.value,
                error=ItemError(**one.error) if one.error else None,
            )
            for one in accepted.items
        ],
    )
