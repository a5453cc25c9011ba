"""What routes take: who calls and what they may do, one transaction, and the services made of both.

All of it is `async`, also what awaits nothing: FastAPI sends plain functions through its thread pool.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Annotated, Any, get_args, get_origin
from urllib.parse import unquote_to_bytes

import structlog
from fastapi import Depends, Header, Query, Request
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import ParamTypes
from fastapi.routing import APIRoute
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.requests import HTTPConnection

from app.api.bodies import check_body
from app.api.cookies import SessionCookies
from app.api.credentials import Credential, Standing
from app.api.rate_limits import count_request, count_stranger
from app.api.sse import Reader
from app.api.validation import pointer
from app.core.constants import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE
from app.core.errors import BadRequest, FieldError, Invalid, Unauthenticated
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.listing import Listing
from app.resources import Resources
from app.services.agent_service import AgentService
from app.services.auth_service import AuthContext, AuthService
from app.services.collection_service import CollectionService
from app.services.document_service import DocumentService
from app.services.intake_service import IntakeService
from app.services.job_service import JobService
from app.services.model_connection_service import ModelConnectionService
from app.services.model_resolver import ModelResolver
from app.services.model_service import ModelService
from app.services.project_service import ProjectService
from app.services.rag_service import RagService
from app.services.run_service import RunService
from app.services.secret_service import SecretService
from app.services.session_service import Client, SessionService

_bearer = HTTPBearer(auto_error=False, description="An API key, `orr_…`, or the access token of a login")
BearerDep = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
_SEND = "send `Authorization: Bearer <API key or access token>`"


async def get_resources(connection: HTTPConnection) -> Resources:
    resources: Resources = connection.app.state.resources
    return resources


ResourcesDep = Annotated[Resources, Depends(get_resources)]


async def get_stopping(request: Request) -> asyncio.Event:
    """Set once this process was told to stop: it takes no new work, and its streams end."""
    stopping: asyncio.Event = request.app.state.stopping
    return stopping


StoppingDep = Annotated[asyncio.Event, Depends(get_stopping)]


async def get_auth_service(resources: ResourcesDep) -> AuthService:
    return resources.auth


AuthDep = Annotated[AuthService, Depends(get_auth_service)]


async def get_sessions(resources: ResourcesDep) -> SessionService:
    return resources.sessions


SessionsDep = Annotated[SessionService, Depends(get_sessions)]


async def get_cookies(resources: ResourcesDep) -> SessionCookies:
    return SessionCookies(resources.settings.public_url)


CookiesDep = Annotated[SessionCookies, Depends(get_cookies)]


async def get_client(connection: HTTPConnection) -> Client:
    address = connection.client.host if connection.client else None
    return Client(address, connection.headers.get("user-agent", ""))


ClientDep = Annotated[Client, Depends(get_client)]


async def get_credential(
    connection: HTTPConnection,
    cookies: CookiesDep,
    bearer: BearerDep,
    x_project_id: Annotated[
        str | None, Header(alias="X-Project-Id", description="Id or slug; by default the key's project")
    ] = None,
) -> Credential:
    """What the request presents; a header comes before a cookie."""
    if bearer is not None:
        return Credential(bearer.credentials, by_cookie=False, project=x_project_id)
    if "authorization" in connection.headers:
        raise Unauthenticated(f"The Authorization header is malformed: {_SEND}.")
    token = connection.cookies.get(cookies.access)
    if not token:
        raise Unauthenticated(f"The request has no Authorization header: {_SEND}.")
    return Credential(token, by_cookie=True, project=x_project_id)


CredentialDep = Annotated[Credential, Depends(get_credential)]


async def get_auth_context(
    connection: HTTPConnection, auth: AuthDep, cookies: CookiesDep, credential: CredentialDep
) -> AuthContext:
    """Who calls. Every route but the public ones takes this."""
    context = await auth.authenticate(credential.token, project=credential.project)
    if credential.by_cookie:
        if context.session_id is None:
            raise Unauthenticated(f"An API key in a cookie is not taken: {_SEND}.")
        cookies.check_use(connection, csrf=auth.tokens.csrf_token(context.session_id))
    structlog.contextvars.bind_contextvars(
        org_id=str(context.tenant.org_id), principal=str(context.principal)
    )
    return context


CallerDep = Annotated[AuthContext, Depends(get_auth_context)]


class Demand:
    """A route's permission, asked for once per request. Start-up refuses routes without one (`api.guard`)."""

    def __init__(self, permission: Permission) -> None:
        self.permission = permission

    async def __call__(self, caller: CallerDep, connection: HTTPConnection, resources: ResourcesDep) -> None:
        count_request(connection, caller, resources.rates)
        caller.demand(self.permission)
        _demanded(connection).append(self.permission)
        await _check_native(connection)


def _demanded(connection: HTTPConnection) -> list[Permission]:
    """What the route has demanded so far."""
    found: list[Permission] = connection.scope.setdefault("orrery.demanded", [])
    return found


async def get_standing(
    connection: HTTPConnection, resources: ResourcesDep, credential: CredentialDep, caller: CallerDep
) -> Standing:
    """For streams: they end when the credential of `caller` does."""
    every_s = resources.settings.stream_recheck_s
    return Standing(resources.auth, credential, _demanded(connection), every_s)


StandingDep = Annotated[Standing, Depends(get_standing)]


async def get_reader(resources: ResourcesDep, standing: StandingDep, stopping: StoppingDep) -> Reader:
    """Whoever opens a stream."""
    return Reader(resources.settings.sse_heartbeat_s, standing, stopping)


ReaderDep = Annotated[Reader, Depends(get_reader)]


async def get_fresh_caller(standing: StandingDep) -> AuthContext:
    """Who calls, asked again now: for what would outlive a credential that has just ended."""
    return await standing.renewed(max_age_s=0)


FreshCallerDep = Annotated[AuthContext, Depends(get_fresh_caller)]


class Public:
    """Marks a route that needs no credential."""

    async def __call__(self, connection: HTTPConnection) -> None:
        await _check_native(connection)


class Doorstep(Public):
    """Marks a route where credentials are got or given back: strangers may knock only so often."""

    async def __call__(self, connection: HTTPConnection) -> None:
        resources = await get_resources(connection)
        count_stranger(connection, resources.rates)
        await super().__call__(connection)


def allow(permission: Permission) -> Any:
    """`dependencies=[allow(Permission.SEARCH)]`: callers need this permission."""
    return Depends(Demand(permission))


PUBLIC: Any = Depends(Public())
DOORSTEP: Any = Depends(Doorstep())


async def _check_native(connection: HTTPConnection) -> None:
    """What holds for every route of our own API; once, and before anything else is looked at."""
    if isinstance(connection, Request) and connection.scope.pop("orrery.native", False):
        _check_path(connection)
        _check_query(connection)
        await check_body(connection)


def _check_path(request: Request) -> None:
    path = request.scope["path"]
    if "\ufffd" in path and not _is_utf8(request.scope.get("raw_path", b"")):
        raise _not_utf8("/path")
    if "\x00" in path:
        found = [name for name, value in request.path_params.items() if "\x00" in value]
        errors = [FieldError(pointer("path", *found[:1]), "unstorable", "contains U+0000")]
        raise Invalid("The path contains the character U+0000.", errors=errors)


def _check_query(request: Request) -> None:
    """422 for query parameters that the route does not declare, or takes once but got twice.

    A misspelt filter must not be ignored.

    U+0000 is refused too: no stored text has it, and PostgreSQL takes none for comparison.
    """
    if not request.scope["query_string"]:
        return
    if not _is_utf8(request.scope["query_string"]):
        raise _not_utf8("/query")
    route: APIRoute = request.scope["route"]
    taken = {p.alias: p.field_info for p in get_flat_params(route.dependant) if _in_query(p.field_info)}
    valid, given = list(taken), Counter(name for name, _ in request.query_params.multi_items())
    known = f"valid: {', '.join(map(repr, valid))}" if valid else "this route takes none"
    errors = []
    for name, value in request.query_params.multi_items():
        if name not in valid:
            message = f"unknown query parameter {name!r}; {known}"
            errors.append(FieldError(pointer("query", name), "extra_forbidden", message))
        elif "\x00" in value:
            errors.append(FieldError(pointer("query", name), "unstorable", f"{name!r} contains U+0000"))
        elif given.pop(name, 1) > 1 and not _takes_several(taken[name].annotation):
            errors.append(FieldError(pointer("query", name), "repeated", f"{name!r} is taken once only"))
    if errors:
        raise Invalid("; ".join(error.message for error in errors[:5]), errors=errors)


def _is_utf8(quoted: bytes) -> bool:
    try:
        unquote_to_bytes(quoted).decode()
    except UnicodeDecodeError:
        return False
    return True


def _not_utf8(where: str) -> BadRequest:
    message = "The URL is not UTF-8 where it is percent-encoded."
    return BadRequest(
        message, code="invalid_encoding", errors=[FieldError(where, "invalid_encoding", message)]
    )


def _takes_several(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(map(_takes_several, get_args(annotation)))


def _in_query(info: object) -> bool:
    return getattr(info, "in_", None) is ParamTypes.query


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
    return resources.agents(caller.tenant, caller.principal)


async def get_secrets(caller: CallerDep, resources: ResourcesDep) -> SecretService:
    return resources.secrets(caller.tenant)


async def get_models(caller: CallerDep, resources: ResourcesDep) -> ModelService:
    sources = resources.model_sources
    return ModelService(resources.database, caller.tenant, sources.providers, sources.forget)


async def get_model_connections(caller: CallerDep, resources: ResourcesDep) -> ModelConnectionService:
    sources = resources.model_sources
    return ModelConnectionService(resources.database, caller.tenant, sources.masters, sources.forget)


async def get_model_resolver(caller: CallerDep, resources: ResourcesDep) -> ModelResolver:
    return resources.models(caller.tenant)


CollectionsDep = Annotated[CollectionService, Depends(get_collections)]
DocumentsDep = Annotated[DocumentService, Depends(get_documents)]
IntakeDep = Annotated[IntakeService, Depends(get_intake)]
JobsDep = Annotated[JobService, Depends(get_jobs)]
ProjectsDep = Annotated[ProjectService, Depends(get_projects)]
RagDep = Annotated[RagService, Depends(get_rag)]


async def get_runs(caller: CallerDep, resources: ResourcesDep) -> RunService:
    return resources.runs(caller.tenant, caller.principal)


AgentsDep = Annotated[AgentService, Depends(get_agents)]
RunsDep = Annotated[RunService, Depends(get_runs)]
SecretsDep = Annotated[SecretService, Depends(get_secrets)]
ModelsDep = Annotated[ModelService, Depends(get_models)]
ModelConnectionsDep = Annotated[ModelConnectionService, Depends(get_model_connections)]
ModelResolverDep = Annotated[ModelResolver, Depends(get_model_resolver)]
