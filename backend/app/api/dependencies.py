"""What routes take: who calls and what they may do, one transaction, and the services made of both."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any
from uuid import UUID

import structlog
from fastapi import Depends, Header, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.constants import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from app.core.paging import PageRequest, decode_cursor
from app.core.permissions import Permission
from app.resources import Resources
from app.services.agent_service import AgentService
from app.services.auth_service import AuthContext, AuthService
from app.services.collection_service import CollectionService
from app.services.document_service import DocumentService
from app.services.intake_service import IntakeService
from app.services.job_service import JobService
from app.services.rag_service import RagService

_bearer = HTTPBearer(auto_error=False, description="An API key, `orr_…`")


def get_resources(request: Request) -> Resources:
    resources: Resources = request.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


def get_auth_service(resources: ResourcesDep) -> AuthService:
    return resources.auth


AuthDep = Annotated[AuthService, Depends(get_auth_service)]


async def get_auth_context(
    auth: AuthDep,
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    project: Annotated[
        str | None, Header(alias="X-Project-Id", description="Id or slug; by default the key's project")
    ] = None,
) -> AuthContext:
    """Who calls. Every route but the public ones takes this."""
    context = await auth.authenticate(credentials.credentials if credentials else None, project=project)
    structlog.contextvars.bind_contextvars(
        org_id=str(context.tenant.org_id), principal=str(context.principal)
    )
    return context


CallerDep = Annotated[AuthContext, Depends(get_auth_context)]


class Demand:
    """A route's permission. Start-up refuses routes without one (see `api.guard`)."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    def __call__(self, caller: CallerDep) -> None:
        caller.demand(self.permission)


class Public:
    """Marks a route that needs no credential."""

    def __call__(self) -> None:
        return None


def allow(permission: Permission) -> Any:
    """`dependencies=[allow(Permission.SEARCH)]`: callers need this permission."""
    return Depends(Demand(permission))


PUBLIC: Any = Depends(Public())


async def get_session(resources: ResourcesDep, caller: CallerDep) -> AsyncIterator[AsyncSession]:
    """One transaction for the request, committed before the response is sent."""
    async with resources.database.unit_of_work(caller.tenant) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


def get_page(
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE_SIZE)] = DEFAULT_PAGE_SIZE,
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before")] = None,
) -> PageRequest:
    after: UUID | None = decode_cursor(cursor) if cursor else None
    return PageRequest(limit, after)


PageDep = Annotated[PageRequest, Depends(get_page)]


def get_collections(session: SessionDep, caller: CallerDep, resources: ResourcesDep) -> CollectionService:
    return CollectionService(session, caller.tenant, resources.embedder)


def get_documents(session: SessionDep, caller: CallerDep, resources: ResourcesDep) -> DocumentService:
    return DocumentService(session, caller.tenant, resources.blobs)


def get_intake(caller: CallerDep, resources: ResourcesDep) -> IntakeService:
    return IntakeService(
        resources.database, caller.tenant, resources.blobs, resources.settings.max_upload_bytes
    )


def get_jobs(caller: CallerDep, resources: ResourcesDep) -> JobService:
    return JobService(resources.database, caller.tenant)


def get_rag(caller: CallerDep, resources: ResourcesDep) -> RagService:
    return resources.rag(caller.tenant)


def get_agents(caller: CallerDep, resources: ResourcesDep) -> AgentService:
    return resources.agents(caller.tenant, caller.principal)


CollectionsDep = Annotated[CollectionService, Depends(get_collections)]
DocumentsDep = Annotated[DocumentService, Depends(get_documents)]
IntakeDep = Annotated[IntakeService, Depends(get_intake)]
JobsDep = Annotated[JobService, Depends(get_jobs)]
RagDep = Annotated[RagService, Depends(get_rag)]
AgentsDep = Annotated[AgentService, Depends(get_agents)]
