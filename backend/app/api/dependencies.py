"""What routes take: who calls and what they may do, one transaction, and the services made of both.

All of it is `async`, also what awaits nothing: FastAPI sends plain functions through its thread pool.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Final

import structlog
from fastapi import Depends, Header, Query, Request
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from app.api.bodies import check_body
from app.api.cookies import SessionCookies
from app.api.credentials import Credential, Standing
from app.api.rate_limits import count_request, count_stranger
from app.api.sse import Reader
from app.api.urls import check_url
from app.core.constants import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from app.core.errors import Unauthenticated
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.listing import Listing
from app.resources import Resources
from app.services.agent_service import AgentService
from app.services.auth_service import AuthContext, AuthService
from app.services.collection_service import CollectionService
from app.services.descendant_service import DescendantService
from app.services.document_service import DocumentService
from app.services.intake_service import IntakeService
from app.services.interrupt_service import InterruptService
from app.services.job_service import JobService
from app.services.model_connection_service import ModelConnectionService
from app.services.model_resolver import ModelResolver
from app.services.model_service import ModelService
from app.services.project_service import ProjectService
from app.services.rag_service import RagService
from app.services.run_service import RunService
from app.services.secret_service import SecretService
from app.services.session_service import Client, SessionService
from app.services.tool_resolver import ProjectTools
from app.services.tool_service import ToolService

_bearer = HTTPBearer(auto_error=False, description="An API key, `orr_…`, or the access token of a login")
BearerDep = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_ADMITTED = "orrery.admitted"
_SEND = "send `Authorization: Bearer <API key or access token>`"


def _resources(connection: HTTPConnection) -> Resources:
    resources: Resources = connection.app.state.resources
    return resources


async def get_resources(connection: HTTPConnection) -> Resources:
    return _resources(connection)


ResourcesDep = Annotated[Resources, Depends(get_resources)]


def _stopping(connection: HTTPConnection) -> asyncio.Event:
    stopping: asyncio.Event = connection.app.state.stopping
    return stopping


async def get_stopping(connection: HTTPConnection) -> asyncio.Event:
    """Set once this process was told to stop: it takes no new work, and its streams end."""
    return _stopping(connection)


StoppingDep = Annotated[asyncio.Event, Depends(get_stopping)]


async def get_auth_service(connection: HTTPConnection) -> AuthService:
    return _resources(connection).auth


AuthDep = Annotated[AuthService, Depends(get_auth_service)]


async def get_sessions(connection: HTTPConnection) -> SessionService:
    return _resources(connection).sessions


SessionsDep = Annotated[SessionService, Depends(get_sessions)]


async def get_cookies(connection: HTTPConnection) -> SessionCookies:
    return SessionCookies(_resources(connection).settings.public_url)


CookiesDep = Annotated[SessionCookies, Depends(get_cookies)]


async def get_client(connection: HTTPConnection) -> Client:
    address = connection.client.host if connection.client else None
    return Client(address, connection.headers.get("user-agent", ""))


ClientDep = Annotated[Client, Depends(get_client)]


@dataclass(frozen=True, slots=True)
class _Admitted:
    """Who was let in by which credential, and what the route has demanded so far."""

    caller: AuthContext
    credential: Credential
    demanded: list[Permission] = field(default_factory=list)


class Demand:
    """A route's permission, asked for once per request. Start-up refuses routes without one (`api.guard`).

    What it finds out is kept in the request's scope for `CallerDep` and the like: FastAPI walks the whole
    tree of dependencies for each place where one is named, which costs more than authentication itself.
    """

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(
        self,
        connection: HTTPConnection,
        bearer: BearerDep,
        x_project_id: Annotated[
            str | None, Header(alias="X-Project-Id", description="Id or slug; by default the key's project")
        ] = None,
    ) -> None:
        admitted: _Admitted | None = connection.scope.get(_ADMITTED)
        if admitted is None:
            admitted = await _admit(connection, bearer, x_project_id)
            connection.scope[_ADMITTED] = admitted
        count_request(connection, admitted.caller, _resources(connection).rates)
        admitted.caller.demand(self.permission)
        admitted.demanded.append(self.permission)
        await _check_native(connection)


async def _admit(
    connection: HTTPConnection, bearer: HTTPAuthorizationCredentials | None, project: str | None
) -> _Admitted:
    auth, cookies = _resources(connection).auth, await get_cookies(connection)
    credential = _presented(connection, bearer, cookies, project)
    caller = await auth.authenticate(credential.token, project=project)
    if credential.by_cookie:
        if caller.session_id is None:
            raise Unauthenticated(f"An API key in a cookie is not taken: {_SEND}.")
        cookies.check_use(connection, csrf=auth.tokens.csrf_token(caller.session_id))
    structlog.contextvars.bind_contextvars(org_id=str(caller.tenant.org_id), principal=str(caller.principal))
    return _Admitted(caller, credential)


def _presented(
    connection: HTTPConnection,
    bearer: HTTPAuthorizationCredentials | None,
    cookies: SessionCookies,
    project: str | None,
) -> Credential:
    """What the request presents; a header comes before a cookie."""
    if bearer is not None:
        return Credential(bearer.credentials, by_cookie=False, project=project)
    if "authorization" in connection.headers:
        raise Unauthenticated(f"The Authorization header is malformed: {_SEND}.")
    token = connection.cookies.get(cookies.access)
    if not token:
        raise Unauthenticated(f"The request has no Authorization header: {_SEND}.")
    return Credential(token, by_cookie=True, project=project)


def admitted_caller(connection: HTTPConnection) -> AuthContext:
    """Who calls a route that has `allow(…)`, for dependencies that need no others."""
    return _admitted(connection).caller


def _admitted(connection: HTTPConnection) -> _Admitted:
    found: _Admitted | None = connection.scope.get(_ADMITTED)
    if found is None:
        raise RuntimeError("the route asks who calls, but has no allow(…) among its dependencies")
    return found


async def get_auth_context(connection: HTTPConnection) -> AuthContext:
    return admitted_caller(connection)


CallerDep = Annotated[AuthContext, Depends(get_auth_context)]


def _standing(connection: HTTPConnection) -> Standing:
    """Ends with the credential of the caller."""
    resources, admitted = _resources(connection), _admitted(connection)
    every_s = resources.settings.stream_recheck_s
    return Standing(resources.auth, admitted.credential, admitted.demanded, every_s)


async def get_reader(connection: HTTPConnection) -> Reader:
    """Whoever opens a stream."""
    heartbeat_s = _resources(connection).settings.sse_heartbeat_s
    return Reader(heartbeat_s, _standing(connection), _stopping(connection))


ReaderDep = Annotated[Reader, Depends(get_reader)]


async def get_fresh_caller(connection: HTTPConnection) -> AuthContext:
    """Who calls, asked again now: for what would outlive a credential that has just ended."""
    return await _standing(connection).renewed(max_age_s=0)


FreshCallerDep = Annotated[AuthContext, Depends(get_fresh_caller)]


async def get_runs(connection: HTTPConnection) -> RunService:
    """Asks for nothing that FastAPI would have to find: of all routes, those of runs are called the most."""
    caller = admitted_caller(connection)
    return _resources(connection).runs(caller.tenant, caller.principal)


RunsDep = Annotated[RunService, Depends(get_runs)]
ASK_WHO_CALLS: Final = (get_auth_context, get_reader, get_fresh_caller, get_runs)
"""Only for routes that have `allow(…)`."""


class Public:
    """Marks a route that needs no credential."""

    async def __call__(self, connection: HTTPConnection) -> None:
        await _check_native(connection)


class Doorstep(Public):
    """Marks a route where credentials are got or given back: strangers may knock only so often."""

    async def __call__(self, connection: HTTPConnection) -> None:
        count_stranger(connection, _resources(connection).rates)
        await super().__call__(connection)


def allow(permission: Permission) -> Any:
    """`dependencies=[allow(Permission.SEARCH)]`: callers need this permission."""
    return Depends(Demand(permission))


PUBLIC: Any = Depends(Public())
DOORSTEP: Any = Depends(Doorstep())


async def _check_native(connection: HTTPConnection) -> None:
    """What holds for every route of our own API; once, and before anything else is looked at."""
    if isinstance(connection, Request) and connection.scope.pop("orrery.native", False):
        check_url(connection)
        await check_body(connection)


async def get_session(resources: ResourcesDep, caller: CallerDep) -> AsyncIterator[AsyncSession]:
    """One transaction for the request, committed before the response is sent."""
    async with resources.database.unit_of_work(caller.tenant) as session:
        yield session


SessionDep = Annotated[AsyncSession, Depends(get_session, scope="function")]


_PAGING = frozenset({"limit", "cursor", "sort", "count"})


def paged(listing: type[Listing[Any]]) -> Any:
    """`page: Annotated[PageRequest, paged(Agents)]`: which page of that list is wanted."""
    valid = [sign + key for key in listing.sorts for sign in ("", "-")]

    async def get_page(
        request: Request,
        limit: int = Query(DEFAULT_PAGE_SIZE, ge=1, le=MAX_PAGE_SIZE),
        cursor: str | None = Query(None, description="`next_cursor` of the page before, all else alike"),
        sort: str = Query(
            listing.usual_sort,
            description="`-` before a key is descending",
            json_schema_extra={"enum": valid},
        ),
        count: bool = Query(False, description="Answer `total`, too"),
    ) -> PageRequest:
        route: APIRoute = request.scope["route"]
        given = sorted(item for item in request.query_params.multi_items() if item[0] not in _PAGING)
        return PageRequest(limit, cursor, sort, count, scope=repr((route.operation_id, given)))

    return Depends(get_page)


async def get_collections(
    session: SessionDep, caller: CallerDep, resources: ResourcesDep
) -> CollectionService:
    return CollectionService(session, caller.tenant, resources.embedder)


async def get_documents(session: SessionDep, caller: CallerDep, resources: ResourcesDep) -> DocumentService:
    return DocumentService(session, caller.tenant, resources.blobs)


async def get_projects(session: SessionDep, caller: CallerDep) -> ProjectService:
    return ProjectService(session, caller.tenant)


async def get_intake(caller: CallerDep, resources: ResourcesDep) -> IntakeService:
    settings = resources.settings
    return IntakeService(
        resources.database,
        caller.tenant,
        resources.blobs,
        max_document_bytes=settings.max_upload_bytes,
        grace_s=settings.upload_grace_s,
    )


async def get_jobs(caller: CallerDep, resources: ResourcesDep) -> JobService:
    return JobService(resources.database, caller.tenant)


async def get_rag(caller: CallerDep, resources: ResourcesDep) -> RagService:
    return resources.rag(caller.tenant)


async def get_agents(caller: CallerDep, resources: ResourcesDep) -> AgentService:
    return resources.agents(
        caller.tenant,
        caller.principal,
        sees_secrets=Permission.SECRETS_READ in caller.permissions,
        sees_people=Permission.USERS_READ in caller.permissions,
    )


async def get_secrets(caller: CallerDep, resources: ResourcesDep) -> SecretService:
    return resources.secrets(caller.tenant)


async def get_models(caller: CallerDep, resources: ResourcesDep) -> ModelService:
    sources = resources.model_sources
    return ModelService(resources.database, caller.tenant, sources.providers, sources.forget)


async def get_model_connections(caller: CallerDep, resources: ResourcesDep) -> ModelConnectionService:
    sources = resources.model_sources
    return ModelConnectionService(resources.database, caller.tenant, sources.masters, sources.forget)


async def get_interrupts(caller: CallerDep, resources: ResourcesDep) -> InterruptService:
    return InterruptService(resources.database, caller.tenant, resources.executor.hear_command)


async def get_descendants(caller: CallerDep, resources: ResourcesDep) -> DescendantService:
    return resources.descendants(caller.tenant, caller.principal)


async def get_model_resolver(caller: CallerDep, resources: ResourcesDep) -> ModelResolver:
    return resources.models(caller.tenant)


async def get_project_tools(caller: CallerDep, resources: ResourcesDep) -> ProjectTools:
    return resources.tools(caller.tenant)


async def get_tools(caller: CallerDep, resources: ResourcesDep) -> ToolService:
    tools = resources.tools(caller.tenant)
    return ToolService(resources.database, caller.tenant, tools.ports, tools.sources.forget)


CollectionsDep = Annotated[CollectionService, Depends(get_collections)]
DocumentsDep = Annotated[DocumentService, Depends(get_documents)]
IntakeDep = Annotated[IntakeService, Depends(get_intake)]
JobsDep = Annotated[JobService, Depends(get_jobs)]
ProjectsDep = Annotated[ProjectService, Depends(get_projects)]
RagDep = Annotated[RagService, Depends(get_rag)]


AgentsDep = Annotated[AgentService, Depends(get_agents)]
SecretsDep = Annotated[SecretService, Depends(get_secrets)]
ModelsDep = Annotated[ModelService, Depends(get_models)]
ModelConnectionsDep = Annotated[ModelConnectionService, Depends(get_model_connections)]
DescendantsDep = Annotated[DescendantService, Depends(get_descendants)]
InterruptsDep = Annotated[InterruptService, Depends(get_interrupts)]
ToolsDep = Annotated[ToolService, Depends(get_tools)]
ProjectToolsDep = Annotated[ProjectTools, Depends(get_project_tools)]
ModelResolverDep = Annotated[ModelResolver, Depends(get_model_resolver)]
