"""Who is calling: credentials, API keys, the first start, and the context that every route works in."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from math import inf
from uuid import UUID

from app.core.config import Settings
from app.core.constants import DEFAULT_PROJECT
from app.core.emails import email_fault
from app.core.errors import Forbidden, Invalid, Misconfigured, NotFound, Unauthenticated
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.passwords import Passwords, password_fault
from app.core.permissions import Permission, granted
from app.core.security import MIN_KEY_LENGTH, api_key_digest, api_key_hint, new_api_key
from app.core.session_tokens import SessionTokens
from app.core.slugs import as_uuid
from app.core.timed_cache import TimedCache
from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, Role, User
from app.db.postgres.repositories.identity import ApiKeys, Holder, Identities, Person, Projects
from app.db.postgres.repositories.listing import contains
from app.db.session import Database, Tenant

_USED_EVERY = timedelta(minutes=1)
_DEFAULT_EMAIL = "owner@orrery.local"
_UNKNOWN = "The API key or access token is unknown, revoked or expired."

CacheKey = tuple[bytes, UUID | str | None]


@dataclass(frozen=True, slots=True)
class AuthContext:
    """Who calls, for which organization and project, and what they may do.

    Called by an API key or in a session, whose id it has. `expires_at` is when the key or the access
    token ends by itself.
    """

    principal: UUID
    tenant: Tenant
    permissions: frozenset[Permission]
    role: str = ""
    key_id: UUID | None = None
    session_id: UUID | None = None
    expires_at: datetime | None = None

    def demand(self, permission: Permission) -> None:
        if permission not in self.permissions:
            held = ", ".join(sorted(self.permissions)) or "none"
            raise Forbidden(f"This needs the permission {permission.value!r}; the credential has: {held}.")


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What the first start made. `api_key` is only known when it has just been made.

    `ignored` names the settings that would have made the owner, where there was one already.
    """

    tenant: Tenant
    api_key: str | None
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Owner:
    user_id: UUID
    tenant: Tenant


def _no_cache() -> TimedCache[CacheKey, AuthContext]:
    return TimedCache(ttl_s=0, size=1)


def _own_tokens() -> SessionTokens:
    return SessionTokens(secrets.token_bytes(32))


@dataclass(slots=True)
class AuthService:
    """`pepper` keys the digests of API keys. Without `tokens`, no session is known here.

    What a credential may do is kept in `cache` for a moment, by the credential's digest. Whatever ends
    one in this process drops it there at once; what other processes end is seen when the moment is over.
    """

    database: Database
    pepper: bytes
    tokens: SessionTokens = field(default_factory=_own_tokens)
    passwords: Passwords = field(default_factory=Passwords)
    cache: TimedCache[CacheKey, AuthContext] = field(default_factory=_no_cache)

    async def authenticate(
        self, token: str | None, *, project: str | None = None, max_age_s: float = inf
    ) -> AuthContext:
        """The context of an API key or access token; what is known of it is younger than `max_age_s`.

        Raises `Unauthenticated`, and `NotFound` for a project that is not the credential's.
        """
        if not token:
            raise Unauthenticated("Send `Authorization: Bearer <API key or access token>`.")
        if len(token) < MIN_KEY_LENGTH:
            raise Unauthenticated(_UNKNOWN)
        digest = api_key_digest(token, self.pepper)
        named = None if project is None else as_uuid(project) or project
        load = partial(self._look_up, token, digest, project)
        context = await self.cache.get((digest, named), load, max_age_s=max_age_s)
        if context.expires_at is not None and context.expires_at <= datetime.now(UTC):
            raise Unauthenticated(_UNKNOWN)
        return context

    async def _look_up(self, token: str, digest: bytes, project: str | None) -> AuthContext:
        claims = self.tokens.read_access_token(token)
        async with self.database.system_work() as session:
            identities = Identities(session)
            if claims is None:
                holder = await identities.key_holder(digest, project=project)
            else:
                holder = await identities.session_holder(
                    claims.session_id, claims.user_id, claims.org_id, project=project
                )
            if holder is None:
                raise Unauthenticated(_UNKNOWN)
            if not holder.last_used_at or holder.last_used_at < datetime.now(UTC) - _USED_EVERY:
                await identities.mark_used(holder, _USED_EVERY)
        return AuthContext(
            holder.user_id,
            Tenant(holder.org_id, _project(holder, project)),
            granted(holder.role, holder.scopes),
            role=holder.role,
            key_id=holder.key_id,
            session_id=holder.session_id,
            expires_at=claims.expires_at if claims else holder.expires_at,
        )

    def forget_sessions(self, ended: Collection[UUID]) -> None:
        """To be called when sessions were ended here."""
        self.cache.drop(lambda context: context.session_id in ended)

    async def person(self, context: AuthContext) -> Person:
        """Names for what the context says in ids."""
        async with self.database.system_work() as session:
            tenant = context.tenant
            return await Identities(session).person(context.principal, tenant.org_id, tenant.project_id)

    async def bootstrap(self, settings: Settings) -> Bootstrapped:
        """Creates owner, organization, project and key where there are none yet; may be repeated.

        A configured `ORRERY_BOOTSTRAP_API_KEY` is made valid even when the organization exists already;
        the owner's email and password are taken only for an owner who is made now.

        Raises:
            Misconfigured: the key or the password is too short, or the email is no address.
        """
        given = settings.bootstrap_api_key.get_secret_value() if settings.bootstrap_api_key else None
        if given is not None and len(given) < MIN_KEY_LENGTH:
            raise Misconfigured(
                f"ORRERY_BOOTSTRAP_API_KEY has {len(given)} characters; it needs at least {MIN_KEY_LENGTH}."
            )
        async with self.database.system_work() as session:
            identities = Identities(session)
            await identities.lock_bootstrap()
            owner, organization, fresh = await self._owner(identities, settings)
            tenant = Tenant(organization, await self._default_project(identities, organization))
            key_id = new_id()
            key = given or (new_api_key(key_id) if fresh else None)
            if key and not await identities.has_key(api_key_digest(key, self.pepper)):
                await identities.add(self._row(key, key_id, tenant=tenant, user_id=owner, name="bootstrap"))
        return Bootstrapped(tenant, key, () if fresh else _owners_settings(settings))

    async def owner(self) -> Owner:
        """The first organization's owner; `Misconfigured` before the first start."""
        async with self.database.system_work() as session:
            identities = Identities(session)
            organization = await identities.first_organization()
            if organization is None:
                raise Misconfigured("There is no organization yet: start `orrery serve` once.")
            return Owner(await identities.owner_of(organization.id), Tenant(organization.id))

    async def _owner(self, identities: Identities, settings: Settings) -> tuple[UUID, UUID, bool]:
        organization = await identities.first_organization()
        if organization is not None:
            return await identities.owner_of(organization.id), organization.id, False
        _check_owner(settings)
        password = settings.bootstrap_password
        user = User(
            id=new_id(),
            email=settings.bootstrap_email or _DEFAULT_EMAIL,
            password_hash=await self.passwords.hash(password.get_secret_value()) if password else None,
        )
        organization = Organization(id=new_id(), slug="default", name="Default")
        membership = Membership(org_id=organization.id, id=new_id(), user_id=user.id, role=Role.OWNER)
        await identities.add(user, organization, membership)
        return user.id, organization.id, True

    async def _default_project(self, identities: Identities, org_id: UUID) -> UUID:
        found = await identities.project_by_slug(org_id, DEFAULT_PROJECT)
        if found is None:
            found = Project(org_id=org_id, id=new_id(), slug=DEFAULT_PROJECT, name="Default")
            await identities.add(found)
        return found.id

    async def create_key(
        self,
        context: AuthContext,
        *,
        name: str,
        permissions: list[str] | None = None,
        project: str | None = None,
        expires_at: datetime | None = None,
    ) -> tuple[ApiKey, str]:
        """A new key of the caller and its secret, shown this once.

        Permissions can only be narrowed, and a key does not outlive the key that made it.
        """
        unknown = sorted(set(permissions or ()) - set(context.permissions))
        if unknown:
            raise Invalid(
                f"the permissions {unknown} are not the caller's; it has {sorted(context.permissions)}"
            )
        org_id = context.tenant.org_id
        async with self.database.unit_of_work(context.tenant) as session:
            bound = context.tenant.project_id
            if project is not None:
                found = await Projects(session, context.tenant).find(project)
                if bound not in (None, found.id):
                    raise NotFound(f"There is no project {project!r} here.")
                bound = found.id
            key_id = new_id()
            key = new_api_key(key_id)
            row = self._row(key, key_id, tenant=Tenant(org_id, bound), user_id=context.principal, name=name)
            row.permissions = sorted(permissions if permissions is not None else context.permissions)
            row.expires_at = expires_at
            if context.key_id is not None:
                row.made_by = context.key_id
                row.expires_at = min(filter(None, (expires_at, context.expires_at)), default=None)
            return await ApiKeys(session, context.tenant).add(row), key

    async def keys(self, context: AuthContext, request: PageRequest, *, q: str | None = None) -> Page[ApiKey]:
        """Live keys: of one project for a caller bound to one, of the organization otherwise."""
        async with self.database.unit_of_work(context.tenant) as session:
            keys = ApiKeys(session, context.tenant)
            statement = keys.live() if q is None else keys.live().where(contains(q, ApiKey.name))
            return await keys.page(request, statement)

    async def revoke_key(self, context: AuthContext, key_id: UUID, *, descendants: bool = False) -> None:
        """Ends a key at once; with `descendants` also the keys that were made with it, at any remove."""
        async with self.database.unit_of_work(context.tenant) as session:
            keys = ApiKeys(session, context.tenant)
            row = await keys.one_or_none(keys.live().where(ApiKey.id == key_id))
            if row is None:
                raise keys.missing(key_id)
            await keys.revoke(row, descendants=descendants)
        self.cache.drop(lambda known: known.key_id is not None and known.tenant.org_id == row.org_id)

    def _row(self, key: str, key_id: UUID, *, tenant: Tenant, user_id: UUID, name: str) -> ApiKey:
        return ApiKey(
            org_id=tenant.org_id,
            id=key_id,
            project_id=tenant.project_id,
            user_id=user_id,
            name=name,
            hint=api_key_hint(key),
            digest=api_key_digest(key, self.pepper),
        )


def _owners_settings(settings: Settings) -> tuple[str, ...]:
    """Those that are set."""
    given = {
        "ORRERY_BOOTSTRAP_EMAIL": settings.bootstrap_email,
        "ORRERY_BOOTSTRAP_PASSWORD": settings.bootstrap_password,
    }
    return tuple(name for name, value in given.items() if value)


def _check_owner(settings: Settings) -> None:
    """Raises `Misconfigured` where nobody could log in with what the settings give the owner."""
    email, password = settings.bootstrap_email, settings.bootstrap_password
    if email and (fault := email_fault(email)):
        raise Misconfigured(f"ORRERY_BOOTSTRAP_EMAIL is {email!r}: {fault}.")
    if not password:
        return
    secret = password.get_secret_value()
    if fault := password_fault(secret, settings.password_min_length):
        raise Misconfigured(f"ORRERY_BOOTSTRAP_PASSWORD has {len(secret)} characters: {fault}.")


def _project(holder: Holder, named: str | None) -> UUID | None:
    """The project to work in: the one that is named, if the credential may work there, else its own."""
    if named is None:
        return holder.project_id
    if holder.named_project_id is None or holder.project_id not in (None, holder.named_project_id):
        raise NotFound(f"There is no project {named!r} here.")
    return holder.named_project_id
