"""Login, refresh and logout; a person's sessions and password."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import Request, Response

from app.api.cookies import SessionCookies
from app.api.dependencies import (
    DOORSTEP,
    BearerDep,
    CallerDep,
    ClientDep,
    CookiesDep,
    FreshCallerDep,
    SessionsDep,
    allow,
    paged,
)
from app.api.idempotency import without_key
from app.api.native import native_router
from app.api.schemas.auth import (
    GrantRead,
    LoginCreate,
    PasswordChange,
    RefreshCreate,
    SessionRead,
    SessionsEnded,
)
from app.api.schemas.common import PageRead, page_of
from app.core.errors import BadRequest, Unauthenticated
from app.core.paging import PageRequest
from app.core.permissions import Permission
from app.db.postgres.repositories.sessions import UserSessions
from app.services.auth_service import AuthContext
from app.services.session_service import Grant, Login, SessionService

router = native_router("/auth", tag="auth")
_NO_KEY = without_key("sessions and passwords are repeated on purpose, and no answer of theirs is kept")


@router.post("/login", operation_id="auth_login", summary="Log in", dependencies=[DOORSTEP, _NO_KEY])
async def login(
    body: LoginCreate,
    request: Request,
    response: Response,
    sessions: SessionsDep,
    client: ClientDep,
    cookies: CookiesDep,
) -> GrantRead:
    """A session. 429 and 503 say in `Retry-After` when to try again."""
    if body.cookie:
        cookies.check_origin(request)
    wanted = Login(body.email, body.password.get_secret_value(), body.organization, browser=body.cookie)
    grant = await sessions.login(wanted, client)
    return _granted(grant, sessions, response, cookies if body.cookie else None)


@router.post(
    "/refresh", operation_id="auth_refresh", summary="Refresh a session", dependencies=[DOORSTEP, _NO_KEY]
)
async def refresh(
    request: Request,
    response: Response,
    sessions: SessionsDep,
    client: ClientDep,
    cookies: CookiesDep,
    body: RefreshCreate | None = None,
) -> GrantRead:
    """A new access token and the next refresh token. A used one that comes again ends the session.

    For a few seconds after its use it may come again (a lost answer, two windows at once): the answer
    has the same next refresh token.
    """
    if (given := _given(body)) is not None:
        return _granted(await sessions.refresh(given, client), sessions, response, None)
    token = _refresh_cookie(request, cookies, sessions)
    if token is None:
        raise Unauthenticated("Send `refresh_token`: the request has neither it nor its cookie.")
    return _granted(await sessions.refresh(token, client), sessions, response, cookies)


@router.post(
    "/logout",
    status_code=204,
    operation_id="auth_logout",
    summary="Log out",
    dependencies=[DOORSTEP, _NO_KEY],
)
async def logout(
    request: Request,
    sessions: SessionsDep,
    cookies: CookiesDep,
    bearer: BearerDep,
    body: RefreshCreate | None = None,
) -> Response:
    """Ends the session that a refresh token, an access token or the cookies name; may be repeated."""
    token = _given(body)
    if token is not None:
        await sessions.logout(refresh_token=token)
    elif bearer is not None:
        await sessions.logout(access_token=bearer.credentials)
    elif (token := _refresh_cookie(request, cookies, sessions)) is not None:
        with suppress(Unauthenticated):  # the browser is to forget also what nobody knows any more
            await sessions.logout(refresh_token=token)
    response = Response(status_code=204)
    cookies.clear(response)
    return response


@router.post(
    "/logout-all",
    operation_id="auth_logout_all",
    summary="Log out everywhere",
    dependencies=[allow(Permission.ACCOUNT), _NO_KEY],
)
async def logout_all(
    caller: CallerDep, sessions: SessionsDep, response: Response, cookies: CookiesDep
) -> SessionsEnded:
    """Ends all of one's sessions, this one too; by an API key, those of its organization."""
    ended = await sessions.revoke_all(caller.principal, _reach(caller))
    cookies.clear(response)
    return SessionsEnded(ended=ended)


@router.get(
    "/sessions",
    operation_id="sessions_list",
    summary="List sessions",
    dependencies=[allow(Permission.ACCOUNT)],
)
async def list_(
    page: Annotated[PageRequest, paged(UserSessions)], caller: CallerDep, sessions: SessionsDep
) -> PageRead[SessionRead]:
    """One's open sessions; by an API key, those of its organization."""
    found = await sessions.page(caller.principal, _reach(caller), page)
    read = page_of(found, SessionRead.model_validate)
    for item in read.items:
        item.current = item.id == caller.session_id
    return read


@router.delete(
    "/sessions/{session_id}",
    status_code=204,
    operation_id="sessions_revoke",
    summary="Revoke a session",
    dependencies=[allow(Permission.ACCOUNT)],
)
async def revoke(session_id: UUID, caller: CallerDep, sessions: SessionsDep) -> Response:
    """Takes effect at once on this server, within 5 s everywhere, also on open streams."""
    await sessions.revoke(caller.principal, _reach(caller), session_id)
    return Response(status_code=204)


@router.post(
    "/password",
    status_code=204,
    operation_id="auth_change_password",
    summary="Change the password",
    dependencies=[allow(Permission.ACCOUNT), _NO_KEY],
)
async def change_password(
    body: PasswordChange, caller: FreshCallerDep, sessions: SessionsDep, client: ClientDep
) -> Response:
    """Needs the current password; ends one's other sessions. API keys stay as they are."""
    if caller.session_id is None:
        raise BadRequest(
            "A password is changed in a session: log in, and send its access token.", code="session_required"
        )
    await sessions.change_password(
        caller.principal,
        caller.session_id,
        current=body.current_password.get_secret_value(),
        new=body.new_password.get_secret_value(),
        client=client,
    )
    return Response(status_code=204)


def _given(body: RefreshCreate | None) -> str | None:
    token = body.refresh_token if body else None
    return token.get_secret_value() if token else None


def _reach(caller: AuthContext) -> UUID | None:
    """A session is the person's own, everywhere; a key is one organization's."""
    return None if caller.session_id else caller.tenant.org_id


def _refresh_cookie(request: Request, cookies: SessionCookies, sessions: SessionService) -> str | None:
    """The refresh token of the cookie, checked like every use of cookies that changes something."""
    token = request.cookies.get(cookies.refresh)
    if not token:
        return None
    claims = sessions.tokens.read_refresh_token(token)
    if claims is not None:
        cookies.check_use(request, csrf=sessions.tokens.csrf_token(claims.session_id))
    return token


def _granted(
    grant: Grant, sessions: SessionService, response: Response, cookies: SessionCookies | None
) -> GrantRead:
    """In cookies where there are some, else in the body."""
    row, csrf, lasts_s = grant.session, sessions.tokens.csrf_token(grant.session.id), sessions.tokens.access_s
    response.headers["Cache-Control"] = "no-store"
    if cookies is not None:
        cookies.put(
            response,
            access=grant.access_token,
            refresh=grant.refresh_token,
            csrf=csrf,
            access_s=lasts_s,
            until=row.expires_at,
        )
    return GrantRead(
        access_token=None if cookies else grant.access_token,
        expires_in=lasts_s,
        refresh_token=None if cookies else grant.refresh_token,
        csrf_token=csrf if cookies else None,
        session_id=row.id,
        session_expires_at=row.expires_at,
        user_id=row.user_id,
        org_id=row.organization_id,
    )
