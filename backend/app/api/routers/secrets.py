"""Secrets, addressed by id or name: write-only credentials of a project."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

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
async def create(body: SecretCreate, secrets: SecretsDep) -> SecretRead:
    """The value is encrypted at once and can only be replaced, never read."""
    row = await secrets.create(body.name, body.value, description=body.description)
    return SecretRead.model_validate(row)


@router.get("", operation_id="secrets_list", dependencies=[allow(Permission.SECRETS_READ)])
async def list_(
    page: Annotated[PageRequest, paged(Secrets)],
    secrets: SecretsDep,
    q: Annotated[str | None, Query(description="Part of the name")] = None,
) -> PageRead[SecretRead]:
    return page_of(await secrets.page(page, q=q), SecretRead.model_validate)


@router.get("/{secret}", operation_id="secrets_get", dependencies=[allow(Permission.SECRETS_READ)])
async def get(secret: str, secrets: SecretsDep) -> SecretRead:
    return SecretRead.model_validate(await secrets.get(secret))


@router.patch("/{secret}", operation_id="secrets_update", dependencies=[allow(Permission.SECRETS_WRITE)])
async def update(secret: str, body: SecretUpdate, secrets: SecretsDep) -> SecretRead:
    if not body.model_fields_set:
        return SecretRead.model_validate(await secrets.get(secret))
    return SecretRead.model_validate(await secrets.describe(secret, body.description))


@router.put("/{secret}/value", operation_id="secrets_replace", dependencies=[allow(Permission.SECRETS_WRITE)])
async def replace(secret: str, body: SecretValue, secrets: SecretsDep) -> SecretRead:
    """Whatever uses the secret takes the new value from its next call on."""
    return SecretRead.model_validate(await secrets.replace(secret, body.value))


@router.delete(
    "/{secret}",
    status_code=204,
    operation_id="secrets_delete",
    dependencies=[allow(Permission.SECRETS_WRITE)],
)
async def delete(secret: str, secrets: SecretsDep) -> Response:
    await secrets.delete(secret)
    return Response(status_code=204)
