"""Secrets, addressed by id or name: write-only credentials of a project."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from app.api.conditional import NOT_MODIFIED, KnownDep, RevisionsDep, tagged, unless_known
from app.api.dependencies import SecretsDep, allow, paged
from app.api.idempotency import idempotent
from app.api.schemas.common import PageRead, page_of
from app.api.schemas.secrets import SecretCreate, SecretRead, SecretUpdate, SecretValue
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.secrets import Secrets

router = APIRouter(prefix="/secrets", tags=["secrets"])


@router.post(
    "",
    status_code=201,
    operation_id="secrets_create",
    dependencies=[allow(Permission.SECRETS_WRITE), idempotent()],
)
async def create(body: SecretCreate, secrets: SecretsDep, response: Response) -> SecretRead:
    """The value is encrypted at once and can only be replaced, never read."""
    row = await secrets.create(body.name, body.value, description=body.description)
    return tagged(SecretRead.model_validate(row), response)


@router.get("", operation_id="secrets_list", dependencies=[allow(Permission.SECRETS_READ)])
async def list_(
    page: Annotated[PageRequest, paged(Secrets)],
    secrets: SecretsDep,
    q: Annotated[str | None, Query(description="Part of the name")] = None,
) -> PageRead[SecretRead]:
    return page_of(await secrets.page(page, q=q), SecretRead.model_validate)


@router.get(
    "/{secret}",
    operation_id="secrets_get",
    dependencies=[allow(Permission.SECRETS_READ)],
    response_model=SecretRead,
    responses=NOT_MODIFIED,
)
async def get(secret: str, secrets: SecretsDep, known: KnownDep) -> Any:
    return unless_known(SecretRead.model_validate(await secrets.get(secret)), known)


@router.patch("/{secret}", operation_id="secrets_update", dependencies=[allow(Permission.SECRETS_WRITE)])
async def update(
    secret: str, body: SecretUpdate, secrets: SecretsDep, response: Response, revisions: RevisionsDep
) -> SecretRead:
    """412 where the secret is at another revision than `If-Match` says."""
    changed = await secrets.update(secret, body.model_dump(exclude_unset=True), revisions=revisions)
    return tagged(SecretRead.model_validate(changed), response)


@router.put("/{secret}/value", operation_id="secrets_replace", dependencies=[allow(Permission.SECRETS_WRITE)])
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
    dependencies=[allow(Permission.SECRETS_WRITE)],
)
async def delete(secret: str, secrets: SecretsDep, revisions: RevisionsDep) -> Response:
    await secrets.delete(secret, revisions=revisions)
    return Response(status_code=204)
