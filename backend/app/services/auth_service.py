"""Who is calling: the first start, API keys, and the context that every route works in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from app.core.config import Settings
from app.core.constants import DEFAULT_PROJECT
from app.core.errors import Forbidden, Invalid, Misconfigured, NotFound, Unauthenticated
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.permissions import Permission, granted
from app.core.security import (
    MIN_KEY_LENGTH,
    api_key_digest,
    api_key_hint,
    hash_password,
    new_api_key,
)
from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, Role, User
from app.db.postgres.repositories.identity import ApiKeys, Identities, KeyHolder, Projects
from app.db.session import Database, Tenant

_USED_EVERY = timedelta(minutes=1)
_DEFAULT_EMAIL = "owner@orrery.local"


@dataclass(frozen=True, slots=True)
class AuthContext:
    """Who calls, for which organization and project, and what they may do."""

    principal: UUID
    tenant: Tenant
    permissions: frozenset[Permission]

    def demand(self, permission: Permission) -> None:
        if permission not in self.permissions:
            held = ", ".join(sorted(self.permissions)) or "none"
            raise Forbidden(f"This needs the permission {permission.value!r}; the credential has: {held}.")


@dataclass(frozen=True, slots=True)
class Bootstrapped:
    """What the first start made. `api_key` is only known when it has just been made."""

    tenant: Tenant
    api_key: str | None


@dataclass(frozen=True, slots=True)
class Owner:
    user_id: UUID
    tenant: Tenant


@dataclass(slots=True)
class AuthService:
    """`pepper` keys the digests of API keys."""

    database: Database
    pepper: bytes

    async def authenticate(self, token: str | None, *, project: str | None = None) -> AuthContext:
        """The context of a bearer token; else `Unauthenticated`, or `NotFound` for a foreign project."""
        if not token or len(token) < MIN_KEY_LENGTH:
            raise Unauthenticated("Send `Authorization: Bearer <API key>`.")
        async with self.database.system_work() as session:
            identities = Identities(session)
            holder = await identities.holder(api_key_digest(token, self.pepper))
            if holder is None:
                raise Unauthenticated("The API key is unknown, revoked or expired.")
            if not holder.last_used_at or holder.last_used_at < datetime.now(UTC) - _USED_EVERY:
                await identities.mark_used(holder)
        project_id = await self._project(holder, project)
        return AuthContext(
            holder.user_id, Tenant(holder.org_id, project_id), granted(holder.role, holder.scopes)
        )

    async def _project(self, holder: KeyHolder, named: str | None) -> UUID | None:
        if named is None or named == str(holder.project_id):
            return holder.project_id
        async with self.database.unit_of_work(Tenant(holder.org_id)) as session:
            project = await Projects(session, Tenant(holder.org_id)).find(named)
        if holder.project_id not in (None, project.id):
            raise NotFound(f"There is no project {named!r} here.")
        return project.id

    async def bootstrap(self, settings: Settings) -> Bootstrapped:
        """Creates owner, organization, project and key where there are none yet; may be repeated.

        A configured `ORRERY_BOOTSTRAP_API_KEY` is made valid even when the organization exists already.
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
        return Bootstrapped(tenant, key)

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
        password = settings.bootstrap_password
        user = User(
            id=new_id(),
            email=settings.bootstrap_email or _DEFAULT_EMAIL,
            password_hash=await hash_password(password.get_secret_value()) if password else None,
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
        """A new key of the caller and its secret, shown this once. Permissions can only be narrowed."""
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
            return await ApiKeys(session, context.tenant).add(row), key

    async def keys(self, context: AuthContext, request: PageRequest) -> Page[ApiKey]:
        """Live keys: of one project for a caller bound to one, of the organization otherwise."""
        async with self.database.unit_of_work(context.tenant) as session:
            keys = ApiKeys(session, context.tenant)
            return await keys.page(request, keys.live())

    async def revoke_key(self, context: AuthContext, key_id: UUID) -> None:
        async with self.database.unit_of_work(context.tenant) as session:
            keys = ApiKeys(session, context.tenant)
            row = await keys.one_or_none(keys.live().where(ApiKey.id == key_id))
            if row is None:
                raise keys.missing(key_id)
            row.revoked_at = datetime.now(UTC)

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
