"""Who am I, and API keys."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query, Response

from app.api.dependencies import AuthDep, CallerDep, FreshCallerDep, allow, paged
from app.api.idempotency import idempotent
from app.api.native import native_router
from app.api.schemas.auth import AuthenticatedBy, KeyCreate, KeyCreated, KeyRead, Me, Named
from app.api.schemas.common import PageRead, page_of
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.identity import ApiKeys

router = native_router("/auth", tag="auth")


@router.get(
    "/me", operation_id="auth_me", summary="Show the caller", dependencies=[allow(Permission.USERS_READ)]
)
async def me(caller: CallerDep, auth: AuthDep) -> Me:
    """Who the credential stands for, where, what it may do, and until when."""
    person = await auth.person(caller)
    return Me(
        user_id=caller.principal,
        email=person.user.email,
        name=person.user.name,
        org_id=caller.tenant.org_id,
        organization=Named.model_validate(person.organization),
        project_id=caller.tenant.project_id,
        project=Named.model_validate(person.project) if person.project else None,
        role=caller.role,
        permissions=sorted(caller.permissions),
        authenticated_by=AuthenticatedBy(
            kind="session" if caller.session_id else "api_key",
            id=caller.session_id or caller.key_id,
            expires_at=caller.expires_at,
        ),
    )


@router.post(
    "/api-keys",
    status_code=201,
    operation_id="api_keys_create",
    summary="Create an API key",
    dependencies=[allow(Permission.KEYS_WRITE), idempotent(secret=True)],
)
async def create_key(body: KeyCreate, caller: FreshCallerDep, auth: AuthDep) -> KeyCreated:
    """The key is shown in this answer only. 403 for permissions that the caller does not have."""
    row, key = await auth.create_key(
        caller,
        name=body.name,
        permissions=[p.value for p in body.permissions] if body.permissions is not None else None,
        project=body.project,
        expires_at=body.expires_at,
    )
    return KeyCreated(**KeyRead.model_validate(row).model_dump(), key=key)


@router.get(
    "/api-keys",
    operation_id="api_keys_list",
    summary="List API keys",
    dependencies=[allow(Permission.KEYS_READ)],
)
async def list_keys(
    page: Annotated[PageRequest, paged(ApiKeys)],
    caller: CallerDep,
    auth: AuthDep,
    q: Annotated[str | None, Query(description="Is in the name, in any case")] = None,
) -> PageRead[KeyRead]:
    """Live keys of the caller's scope."""
    return page_of(await auth.keys(caller, page, q=q), KeyRead.model_validate)


@router.delete(
    "/api-keys/{key_id}",
    status_code=204,
    operation_id="api_keys_revoke",
    summary="Revoke an API key",
    dependencies=[allow(Permission.KEYS_WRITE)],
)
async def revoke_key(
    key_id: UUID,
    caller: CallerDep,
    auth: AuthDep,
    descendants: Annotated[bool, Query(description="Also the keys made with it, and with those")] = False,
) -> Response:
    """Takes effect at once on this server, within 5 s everywhere, also on open streams."""
    await auth.revoke_key(caller, key_id, descendants=descendants)
    return Response(status_code=204)
