"""Secrets, addressed by id or name: write-only credentials of a project."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import SecretsDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.secrets import SecretCreate, SecretRead, SecretUpdate, SecretValue
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.secrets import Secrets

router = native_router("/secrets", tag="secrets")


@router.post(
    "",
    status_code=201,
    operation_id="secrets_create",
    summary="Create a secret",
    dependencies=[allow(Permission.SECRETS_WRITE), idempotent()],
)
async def create(body: SecretCreate, secrets: SecretsDep, response: Response) -> SecretRead:
    """The value is encrypted at once and can only be replaced, never read."""
    row = await secrets.create(body.name, body.value, description=body.description)
    return tagged(SecretRead.model_validate(row), response)


@router.get(
    "", operation_id="secrets_list", summary="List secrets", dependencies=[allow(Permission.SECRETS_READ)]
)
async def list_(
    page: Annotated[PageRequest, paged(Secrets)],
    secrets: SecretsDep,
    q: Annotated[str | None, Query(description="Part of the name")] = None,
) -> PageRead[SecretRead]:
    """Without values."""
    return page_of(await secrets.page(page, q=q), SecretRead.model_validate)


@router.get(
    "/{secret}",
    operation_id="secrets_get",
    summary="Get a secret",
    dependencies=[allow(Permission.SECRETS_READ)],
    response_model=SecretRead,
    responses=NOT_MODIFIED,
)
async def get(secret: str, secrets: SecretsDep, known: KnownDep) -> Any:
    """By id or name; never with the value. 304 where the ETag in `If-None-Match` is current."""
    return unless_known(SecretRead.model_validate(await secrets.get(secret)), known)


@router.patch(
    "/{secret}",
    operation_id="secrets_update",
    summary="Update a secret",
    dependencies=[allow(Permission.SECRETS_WRITE)],
)
async def update(
    secret: str, body: SecretUpdate, secrets: SecretsDep, response: Response, revisions: RevisionsDep
) -> SecretRead:
    """412 where the secret is at another revision than `If-Match` says."""
    changed = await secrets.update(secret, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(SecretRead.model_validate(changed), response)


@router.put(
    "/{secret}/value",
    operation_id="secrets_replace",
    summary="Replace the value of a secret",
    dependencies=[allow(Permission.SECRETS_WRITE)],
)
async def replace(
    secret: str, body: SecretValue, secrets: SecretsDep, response: Response, revisions: RevisionsDep
) -> SecretRead:
    """Whatever uses the secret takes the new value from its next call on."""
    changed = await secrets.replace(secret, body.value, revisions=revisions)
    return tagged(SecretRead.model_validate(changed), response)


@router.delete(
    "/{secret}",
    status_code=204,
    operation_id="secrets_delete",
    summary="Delete a secret",
    dependencies=[allow(Permission.SECRETS_WRITE)],
)
async def delete(secret: str, secrets: SecretsDep, revisions: RevisionsDep) -> Response:
    """Whatever uses the secret fails from its next call on."""
    await secrets.delete(secret, revisions=revisions)
    return Response(status_code=204)
