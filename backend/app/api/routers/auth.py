"""Who am I, and API keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Response
from pydantic import AfterValidator, AwareDatetime, Field
from pydantic_core import PydanticCustomError

from app.api.dependencies import AuthDep, CallerDep, PageDep, allow
from app.api.schemas.common import Body, Name, PageRead, Read
from app.core.permissions import Permission

router = APIRouter(prefix="/auth", tags=["auth"])


class Me(Read):
    """Whom the credential stands for."""

    user_id: UUID
    org_id: UUID
    project_id: UUID | None
    permissions: list[str]


_LAST_YEAR = 9998  # of which every UTC offset is still a date


def _to_come(moment: datetime) -> datetime:
    if moment <= datetime.now(UTC) or moment.year > _LAST_YEAR:
        raise PydanticCustomError(
            "not_to_come", "must lie in the future, at the latest in {last}", {"last": _LAST_YEAR}
        )
    return moment


class KeyCreate(Body):
    """`permissions` can only narrow the caller's; without them the key has the caller's."""

    name: Name
    permissions: Annotated[list[Permission], Field(max_length=100)] | None = None
    project: str | None = None
    expires_at: Annotated[AwareDatetime, AfterValidator(_to_come)] | None = None


class KeyRead(Read):
    id: UUID
    name: str
    hint: str
    project_id: UUID | None
    permissions: list[str] | None
    expires_at: datetime | None
    last_used_at: datetime | None
    created_at: datetime


class KeyCreated(KeyRead):
    """`key` is shown this once."""

    key: str


@router.get("/me", operation_id="auth_me", dependencies=[allow(Permission.USERS_READ)])
async def me(caller: CallerDep) -> Me:
    return Me(
        user_id=caller.principal,
        org_id=caller.tenant.org_id,
        project_id=caller.tenant.project_id,
        permissions=sorted(caller.permissions),
    )


@router.post(
    "/api-keys", status_code=201, operation_id="api_keys_create", dependencies=[allow(Permission.KEYS_WRITE)]
)
async def create_key(body: KeyCreate, caller: CallerDep, auth: AuthDep) -> KeyCreated:
    row, key = await auth.create_key(
        caller,
        name=body.name,
        permissions=[p.value for p in body.permissions] if body.permissions is not None else None,
        project=body.project,
        expires_at=body.expires_at,
    )
    return KeyCreated(**KeyRead.model_validate(row).model_dump(), key=key)


@router.get("/api-keys", operation_id="api_keys_list", dependencies=[allow(Permission.KEYS_READ)])
async def list_keys(page: PageDep, caller: CallerDep, auth: AuthDep) -> PageRead[KeyRead]:
    """Live keys of the caller's scope."""
    found = await auth.keys(caller, page)
    return PageRead(items=[KeyRead.model_validate(row) for row in found.items], next_cursor=found.next_cursor)


@router.delete(
    "/api-keys/{key_id}",
    status_code=204,
    operation_id="api_keys_revoke",
    dependencies=[allow(Permission.KEYS_WRITE)],
)
async def revoke_key(key_id: UUID, caller: CallerDep, auth: AuthDep) -> Response:
    """Takes effect with the next request."""
    await auth.revoke_key(caller, key_id)
    return Response(status_code=204)
