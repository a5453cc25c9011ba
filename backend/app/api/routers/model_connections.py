"""Connections to model providers, addressed by id or slug; their keys are write-only."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import ModelConnectionsDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.models import ConnectionCreate, ConnectionRead, ConnectionUpdate
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.registry import ModelConnections

router = native_router("/model-connections", tag="model-connections")


@router.post(
    "",
    status_code=201,
    operation_id="model_connections_create",
    summary="Create a model connection",
    dependencies=[allow(Permission.CONNECTIONS_WRITE), idempotent()],
)
async def create(
    body: ConnectionCreate, connections: ModelConnectionsDep, response: Response
) -> ConnectionRead:
    """The key is encrypted at once and can only be replaced, never read."""
    row = await connections.create(
        body.slug,
        provider=body.provider,
        base_url=body.base_url,
        api_key=body.api_key,
        description=body.description,
    )
    return tagged(ConnectionRead.model_validate(row), response)


@router.get(
    "",
    operation_id="model_connections_list",
    summary="List model connections",
    dependencies=[allow(Permission.CONNECTIONS_READ)],
)
async def list_(
    page: Annotated[PageRequest, paged(ModelConnections)],
    connections: ModelConnectionsDep,
    q: Annotated[str | None, Query(description="Part of the slug")] = None,
) -> PageRead[ConnectionRead]:
    """Without keys."""
    return page_of(await connections.page(page, q=q), ConnectionRead.model_validate)


@router.get(
    "/{connection}",
    operation_id="model_connections_get",
    summary="Get a model connection",
    dependencies=[allow(Permission.CONNECTIONS_READ)],
    response_model=ConnectionRead,
    responses=NOT_MODIFIED,
)
async def get(connection: str, connections: ModelConnectionsDep, known: KnownDep) -> Any:
    """By id or slug; never with the key. 304 where the ETag in `If-None-Match` is current."""
    return unless_known(ConnectionRead.model_validate(await connections.get(connection)), known)


@router.patch(
    "/{connection}",
    operation_id="model_connections_update",
    summary="Update a model connection",
    dependencies=[allow(Permission.CONNECTIONS_WRITE)],
)
async def update(
    connection: str,
    body: ConnectionUpdate,
    connections: ModelConnectionsDep,
    response: Response,
    revisions: RevisionsDep,
) -> ConnectionRead:
    """Another host needs the key again, so that nobody can send a key that they do not know elsewhere.

    412 where the connection is at another revision than `If-Match` says.
    """
    changes = {name: getattr(body, name) for name in body.model_fields_set}
    changed = await connections.update(connection, changes, revisions=revisions)
    return tagged(ConnectionRead.model_validate(changed), response)


@router.delete(
    "/{connection}",
    status_code=204,
    operation_id="model_connections_delete",
    summary="Delete a model connection",
    dependencies=[allow(Permission.CONNECTIONS_WRITE)],
)
async def delete(connection: str, connections: ModelConnectionsDep, revisions: RevisionsDep) -> Response:
    """409 while models are called by it."""
    await connections.delete(connection, revisions=revisions)
    return Response(status_code=204)
