"""People's sessions: login with bounded guessing, refresh with reuse detection, logout, passwords."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.client_address import address_hint, counted_address
from app.core.config import Settings
from app.core.errors import (
    AppError,
    BadRequest,
    FieldError,
    Invalid,
    NotFound,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.passwords import Passwords, Verdict, password_fault
from app.core.session_tokens import AccessClaims, RefreshClaims, SessionTokens
from app.core.slugs import as_uuid
from app.db.postgres.models.identity import Organization, User
from app.db.postgres.models.sessions import SessionEnd, UserSession
from app.db.postgres.repositories.identity import Identities
from app.db.postgres.repositories.login_attempts import Allowance, LoginAttempts
from app.db.postgres.repositories.sessions import Held, UserSessions
from app.db.session import Database

logger = structlog.get_logger(__name__)

_USER_AGENT_SHOWN = 300
_NO_REFRESH = "The refresh token is unknown, used, revoked or expired: log in again."


@dataclass(frozen=True, slots=True)
class Client:
    """Where a request comes from, as far as it says."""

    address: str | None
    user_agent: str


@dataclass(frozen=True, slots=True)
class Login:
    """`organization` is an id or a slug; needed by members of several. `browser`: tokens go in cookies."""

    email: str
    password: str
    organization: str | None = None
    browser: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What a session's holder gets; `refresh_token` replaces the one before."""

    session: UserSession
    access_token: str
    refresh_token: str


@dataclass(slots=True)
class SessionService:
    """`forget` is told which sessions were ended here, so that nothing in this process remembers them."""

    database: Database
    tokens: SessionTokens
    passwords: Passwords
    settings: Settings
    forget: Callable[[Collection[UUID]], None]

    async def login(self, login: Login, client: Client) -> Grant:
        """A new session.

        Raises:
            Unauthenticated: in the same words, after the same work, for an unknown email, a wrong or
                missing password, a suspended user and one without an organization.
            RateLimited: too many attempts for this email from this address, or from this address.
            Unavailable: too many logins wait for the processor.
            BadRequest, Invalid: the password is right, but no, or no such, organization was chosen.
        """
        user, verdict = await self._verify(login.email, login.password, client)
        if user is None or not verdict.fits:
            raise _refused()
        async with self.database.system_work() as session:
            opened = await self._open(session, user, verdict, login, client)
            surplus = await UserSessions(session).end_surplus(user.id, self.settings.sessions_per_user)
        self.forget(surplus)
        if isinstance(opened, AppError):  # raised after the commit, which takes back the counted attempt
            raise opened
        return opened

    async def _verify(self, email: str, password: str, client: Client) -> tuple[User | None, Verdict]:
        """The user of that email, if any, and whether it is the password.

        Counted, and that committed, before it is looked at. A guess that then finds no room is not looked
        at, and taken back: others who crowd the logins must not use up the attempts of this one.
        """
        self.passwords.check_room()
        async with self.database.system_work() as session:
            await self._count(session, email, client)
            user = await Identities(session).user_by_email(email.strip())
        try:
            return user, await self.passwords.verify(password, user.password_hash if user else None)
        except Unavailable:
            async with self.database.system_work() as session:
                await self._take_back(session, email, client)
            raise

    async def _count(self, session: AsyncSession, email: str, client: Client) -> None:
        attempts = LoginAttempts(session)
        for digest, allowance in self._buckets(email, client):
            if wait_s := await attempts.count(digest, allowance):
                detail = f"Too many attempts to log in; try again in {ceil(wait_s)} s."
                raise RateLimited(detail, code="too_many_logins", retry_after_s=wait_s)
        await attempts.sweep()

    def _buckets(self, email: str, client: Client) -> tuple[tuple[bytes, Allowance], ...]:
        """Of the email from this address, then of the address: always locked in this order."""
        settings, address = self.settings, counted_address(client.address)
        pair = self.tokens.attempt_digest("email", email.strip().lower(), address)
        return (
            (pair, Allowance(settings.login_attempts, settings.login_window_s)),
            (
                self.tokens.attempt_digest("address", address),
                Allowance(settings.login_attempts_per_address, settings.login_window_s),
            ),
        )

    async def _take_back(self, session: AsyncSession, email: str, client: Client) -> None:
        attempts = LoginAttempts(session)
        for digest, allowance in self._buckets(email, client):
            await attempts.take_back(digest, allowance)

    async def _forgive(self, session: AsyncSession, email: str, client: Client) -> None:
        (pair, _), (address, allowance) = self._buckets(email, client)
        attempts = LoginAttempts(session)
        await attempts.forget(pair)
        await attempts.take_back(address, allowance)

    async def _open(
        self, session: AsyncSession, user: User, verdict: Verdict, login: Login, client: Client
    ) -> Grant | AppError:
        """The session, if the user is still who was verified."""
        identities = Identities(session)
        fresh = await identities.locked_user(user.id, verified=user.password_hash)
        organizations = await identities.organizations_of(user.id)
        if fresh is None or not organizations:
            return _refused()
        await self._forgive(session, login.email, client)
        if verdict.fresh_hash:
            fresh.password_hash = verdict.fresh_hash
        chosen = _chosen(organizations, login.organization)
        if isinstance(chosen, AppError):
            return chosen
        sessions = UserSessions(session)
        await sessions.sweep(user.id)
        return await self._first(sessions, user.id, chosen.id, client, browser=login.browser)

    async def _first(
        self, sessions: UserSessions, user_id: UUID, org_id: UUID, client: Client, *, browser: bool
    ) -> Grant:
        now = await sessions.now()
        row = UserSession(
            id=new_id(),
            user_id=user_id,
            organization_id=org_id,
            user_agent=client.user_agent[:_USER_AGENT_SHOWN],
            address_hint=address_hint(client.address),
            browser=browser,
            created_at=now,
            last_used_at=now,
            expires_at=self._expiry(now, began=now),
        )
        await sessions.add(row)
        return self._grant(row)

    def _expiry(self, now: datetime, *, began: datetime) -> datetime:
        idle, most = self.settings.session_idle_s, self.settings.session_max_s
        return min(now + timedelta(seconds=idle), began + timedelta(seconds=most))

    def _grant(self, row: UserSession) -> Grant:
        access = self.tokens.access_token(user_id=row.user_id, session_id=row.id, org_id=row.organization_id)
        return Grant(row, access, self.tokens.refresh_token(row.id, row.generation))

    async def refresh(self, token: str, client: Client) -> Grant:
        """The session goes on with the successor of `token`, which is now used; else `Unauthenticated`.

        Repeated within the tolerance, while nobody has used the successor, a refresh gets the same
        successor again. Any other use of a used token means that two hold the session: it ends.
        """
        claims = self.tokens.read_refresh_token(token)
        if claims is None:
            raise Unauthenticated(_NO_REFRESH)
        async with self.database.system_work() as session:
            sessions = UserSessions(session)
            held = await sessions.held(claims.session_id)
            if held is None or not held.alive:
                raise Unauthenticated(_NO_REFRESH)
            goes_on = self._goes_on(held, claims.generation, client)
            if not goes_on:
                await sessions.end_one(held.session.id, SessionEnd.REUSE)
        if not goes_on:
            row = held.session
            logger.warning("refresh_token_reused", session_id=str(row.id), user_id=str(row.user_id))
            self.forget([row.id])
            raise Unauthenticated(_NO_REFRESH)
        return self._grant(held.session)

    def _goes_on(self, held: Held, generation: int, client: Client) -> bool:
        """Whether the token of that generation may be used now.

        A later one than the row knows of was given before the row was set back: two could hold that, too.
        """
        row = held.session
        if generation == row.generation:
            row.generation += 1
            row.refreshed_at = row.last_used_at = held.now
            row.expires_at = self._expiry(held.now, began=row.created_at)
            row.address_hint = address_hint(client.address)
            return True
        if generation != row.generation - 1 or row.refreshed_at is None:
            return False
        return (held.now - row.refreshed_at).total_seconds() <= self.settings.refresh_tolerance_s

    async def logout(self, *, refresh_token: str | None = None, access_token: str | None = None) -> None:
        """Ends the session of either token, if it is open; also of one that is used or expired.

        Raises `Unauthenticated` for what is no token of ours.
        """
        claims: RefreshClaims | AccessClaims | None = None
        if refresh_token is not None:
            claims = self.tokens.read_refresh_token(refresh_token)
        elif access_token is not None:
            claims = self.tokens.read_access_token(access_token, expired_too=True)
        if claims is None:
            raise Unauthenticated("This is neither a refresh token nor an access token of a session.")
        async with self.database.system_work() as session:
            await UserSessions(session).end_one(claims.session_id, SessionEnd.LOGOUT)
        self.forget([claims.session_id])

    async def page(self, user_id: UUID, org_id: UUID | None, request: PageRequest) -> Page[UserSession]:
        """The user's open sessions; of one organization where it is given."""
        async with self.database.system_work() as session:
            return await UserSessions(session).page(user_id, org_id, request)

    async def revoke(self, user_id: UUID, org_id: UUID | None, session_id: UUID) -> None:
        """Ends one open session of the user; `NotFound` where there is none."""
        async with self.database.system_work() as session:
            ended = await UserSessions(session).end(
                user_id, SessionEnd.REVOKED, org_id=org_id, only=session_id
            )
        if not ended:
            raise NotFound(f"There is no session {str(session_id)!r} here.")
        self.forget(ended)

    async def revoke_all(self, user_id: UUID, org_id: UUID | None) -> int:
        """Ends all open sessions of the user; answers how many there were."""
        async with self.database.system_work() as session:
            ended = await UserSessions(session).end(user_id, SessionEnd.REVOKED, org_id=org_id)
        self.forget(ended)
        return len(ended)

    async def change_password(
        self, user_id: UUID, session_id: UUID, *, current: str, new: str, client: Client
    ) -> None:
        """Sets a password and ends the user's other sessions. Guessing is bounded as in `login`."""
        if fault := password_fault(new, self.settings.password_min_length):
            raise _field("new_password", "too_short", fault)
        if new == current:
            raise _field("new_password", "unchanged", "the new password is the current one")
        async with self.database.system_work() as session:
            email = await Identities(session).email_of(user_id)
        user, verdict = await self._verify(email, current, client)
        wrong = _field("current_password", "wrong", "this is not the current password")
        if user is None or not verdict.fits:
            raise wrong
        fresh_hash = await self.passwords.hash(new)
        async with self.database.system_work() as session:
            changing = await Identities(session).locked_user(user_id, verified=user.password_hash)
            if changing is None:
                raise wrong
            changing.password_hash = fresh_hash
            await self._forgive(session, email, client)
            ended = await UserSessions(session).end(user_id, SessionEnd.PASSWORD, but=session_id)
        self.forget(ended)


def _refused() -> Unauthenticated:
    return Unauthenticated("The email or the password is wrong.", code="invalid_credentials")


def _chosen(organizations: list[Organization], wanted: str | None) -> Organization | AppError:
    """The organization to log in to. One that is not the user's answers like one that is not there."""
    choice = ", ".join(repr(organization.slug) for organization in organizations)
    if wanted is None:
        if len(organizations) == 1:
            return organizations[0]
        return BadRequest(
            f"You belong to several organizations: send `organization`, one of {choice}.",
            code="organization_required",
        )
    org_id = as_uuid(wanted)
    for organization in organizations:
        if wanted == organization.slug or org_id == organization.id:
            return organization
    return _field("organization", "unknown_organization", f"{wanted!r} is none of yours: {choice}")


def _field(name: str, code: str, message: str) -> Invalid:
    return Invalid(message, errors=[FieldError(f"/body/{name}", code, message)])
