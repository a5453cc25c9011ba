"""Users, organizations and credentials: the look-ups that come before any tenant is known, and projects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import Select, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, Role, User
from app.db.postgres.repositories.base import Repository

_BOOTSTRAP_LOCK = 0x6F727266


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Whom an API key stands for."""

    key_id: UUID
    org_id: UUID
    project_id: UUID | None
    user_id: UUID
    role: Role
    scopes: list[str] | None
    last_used_at: datetime | None


class Identities:
    """Look-ups across organizations; takes a session of `system_work`."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def holder(self, digest: bytes) -> KeyHolder | None:
        """Who holds the live key with this digest: not revoked, not expired, its owner not suspended."""
        statement = (
            select(ApiKey, Membership.role)
            .join(Membership, (Membership.org_id == ApiKey.org_id) & (Membership.user_id == ApiKey.user_id))
            .join(User, User.id == ApiKey.user_id)
            .where(
                ApiKey.digest == digest,
                ApiKey.revoked_at.is_(None),
                User.suspended_at.is_(None),
                or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
            )
        )
        row = (await self.session.execute(statement)).one_or_none()
        if row is None:
            return None
        key, role = row
        return KeyHolder(
            key.id, key.org_id, key.project_id, key.user_id, role, key.permissions, key.last_used_at
        )

    async def has_key(self, digest: bytes) -> bool:
        """Whether there is such a key, valid or not: a revoked one is not made again."""
        statement = select(ApiKey.id).where(ApiKey.digest == digest)
        return (await self.session.execute(statement)).first() is not None

    async def mark_used(self, holder: KeyHolder) -> None:
        await self.session.execute(
            update(ApiKey)
            .where(ApiKey.org_id == holder.org_id, ApiKey.id == holder.key_id)
            .values(last_used_at=func.now())
        )

    async def first_organization(self) -> Organization | None:
        statement = select(Organization).order_by(Organization.created_at).limit(1)
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def user_by_email(self, email: str) -> User | None:
        statement = select(User).where(func.lower(User.email) == email.lower())
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def owner_of(self, org_id: UUID) -> UUID:
        statement = (
            select(Membership.user_id)
            .where(Membership.org_id == org_id, Membership.role == Role.OWNER)
            .order_by(Membership.id)
            .limit(1)
        )
        return (await self.session.execute(statement)).scalar_one()

    async def project_by_slug(self, org_id: UUID, slug: str) -> Project | None:
        statement = select(Project).where(Project.org_id == org_id, Project.slug == slug)
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def lock_bootstrap(self) -> None:
        """Lets one process at a time go through the first start, until its transaction ends."""
        await self.session.execute(select(func.pg_advisory_xact_lock(_BOOTSTRAP_LOCK)))

    async def add(self, *rows: User | Organization | Membership | Project | ApiKey) -> None:
        """Inserts `rows` in this order."""
        for row in rows:
            self.session.add(row)
            await self.session.flush()


class Projects(Repository[Project]):
    """Projects of one organization."""

    model = Project
    noun = "project"
    by_project = False


class ApiKeys(Repository[ApiKey]):
    """API keys of one organization."""

    model = ApiKey
    noun = "API key"
    by_project = False

    def live(self) -> Select[ApiKey]:
        """Keys that are not revoked, of the tenant's project where it names one."""
        statement = self.visible().where(ApiKey.revoked_at.is_(None))
        if self.tenant.project_id is not None:
            statement = statement.where(ApiKey.project_id == self.tenant.project_id)
        return statement
