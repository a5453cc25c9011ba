"""Users, organizations and credentials: the look-ups that come before any tenant is known, and projects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import CTE, ColumnElement, Select, and_, false, func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.slugs import as_uuid
from app.db.postgres.models.agents import Agent
from app.db.postgres.models.files import File
from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, Role, User
from app.db.postgres.models.jobs import WorkItem
from app.db.postgres.models.rag import Collection, Document
from app.db.postgres.models.registry import ModelConnection, ModelRegistry, ToolRegistry
from app.db.postgres.models.secrets import Secret
from app.db.postgres.models.sessions import UserSession
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts
from app.db.postgres.repositories.work import OPEN

_BOOTSTRAP_LOCK = 0x6F727266
HELD: dict[str, type[Any]] = {
    "agents": Agent,
    "collections": Collection,
    "documents": Document,
    "files": File,
    "models": ModelRegistry,
    "model connections": ModelConnection,
    "tools": ToolRegistry,
    "secrets": Secret,
    "API keys": ApiKey,
    "unfinished jobs": WorkItem,
}
"""What makes a project not empty; its jobs that have ended and its pipelines go with it."""


def _held(model: type[Any], project: Project) -> Select[int]:
    held = (
        select(func.count())
        .select_from(model)
        .where(model.org_id == project.org_id, model.project_id == project.id)
    )
    if model is ApiKey:
        return held.where(ApiKey.revoked_at.is_(None))
    return held.where(WorkItem.state.in_(OPEN)) if model is WorkItem else held


@dataclass(frozen=True, slots=True)
class Holder:
    """Whom a credential stands for: one API key, or one session.

    `project_id` is the key's own; `named_project_id` the one that the request names, if it is there.
    """

    user_id: UUID
    org_id: UUID
    role: Role
    named_project_id: UUID | None
    last_used_at: datetime | None
    key_id: UUID | None = None
    session_id: UUID | None = None
    project_id: UUID | None = None
    scopes: list[str] | None = None
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Person:
    """A user in an organization, and in the project that a request is about."""

    user: User
    organization: Organization
    project: Project | None


@dataclass(frozen=True, slots=True)
class Known:
    """A user as others of the organization know them."""

    name: str
    email: str


class Identities:
    """Look-ups across organizations; takes a session of `system_work`."""

    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def key_holder(self, digest: bytes, *, project: str | None = None) -> Holder | None:
        """Who holds the live key with this digest: not revoked, not expired, its owner not suspended."""
        statement = (
            select(ApiKey, Membership.role, Project.id)
            .select_from(ApiKey)
            .join(Membership, (Membership.org_id == ApiKey.org_id) & (Membership.user_id == ApiKey.user_id))
            .join(User, User.id == ApiKey.user_id)
            .outerjoin(Project, _is_named(project, ApiKey.org_id))
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
        key, role, named = row
        return Holder(
            user_id=key.user_id,
            org_id=key.org_id,
            role=role,
            named_project_id=named,
            last_used_at=key.last_used_at,
            key_id=key.id,
            project_id=key.project_id,
            scopes=key.permissions,
            expires_at=key.expires_at,
        )

    async def session_holder(
        self, session_id: UUID, user_id: UUID, org_id: UUID, *, project: str | None = None
    ) -> Holder | None:
        """Whose open session this is, if it is that user's, who is a member there and not suspended."""
        statement = (
            select(UserSession.last_used_at, Membership.role, Project.id)
            .select_from(UserSession)
            .join(
                Membership,
                (Membership.org_id == UserSession.organization_id)
                & (Membership.user_id == UserSession.user_id),
            )
            .join(User, User.id == UserSession.user_id)
            .outerjoin(Project, _is_named(project, UserSession.organization_id))
            .where(
                UserSession.id == session_id,
                UserSession.user_id == user_id,
                UserSession.organization_id == org_id,
                UserSession.ended_at.is_(None),
                UserSession.expires_at > func.now(),
                User.suspended_at.is_(None),
            )
        )
        row = (await self.session.execute(statement)).one_or_none()
        if row is None:
            return None
        used, role, named = row
        return Holder(user_id, org_id, role, named, used, session_id=session_id)

    async def has_key(self, digest: bytes) -> bool:
        """Whether there is such a key, valid or not: a revoked one is not made again."""
        statement = select(ApiKey.id).where(ApiKey.digest == digest)
        return (await self.session.execute(statement)).first() is not None

    async def has_keys(self) -> bool:
        """Whether any API key was ever made."""
        return (await self.session.execute(select(ApiKey.id).limit(1))).first() is not None

    async def mark_used(self, holder: Holder, every: timedelta) -> None:
        """Notes that the credential is used, unless somebody did within `every`."""
        row: type[ApiKey | UserSession] = UserSession
        which = UserSession.id == holder.session_id
        if holder.key_id is not None:
            row, which = ApiKey, and_(ApiKey.org_id == holder.org_id, ApiKey.id == holder.key_id)
        await self.session.execute(
            update(row)
            .where(which, or_(row.last_used_at.is_(None), row.last_used_at < func.now() - every))
            .values(last_used_at=func.now())
            .execution_options(synchronize_session=False)
        )

    async def first_organization(self) -> Organization | None:
        statement = select(Organization).order_by(Organization.created_at).limit(1)
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def user_by_email(self, email: str) -> User | None:
        statement = select(User).where(func.lower(User.email) == email.lower())
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def user(self, user_id: UUID) -> User:
        return await self.session.get_one(User, user_id)

    async def email_of(self, user_id: UUID) -> str:
        return (await self.session.execute(select(User.email).where(User.id == user_id))).scalar_one()

    async def locked_user(self, user_id: UUID, *, verified: str | None) -> User | None:
        """The user, whom nobody else changes until the end of the transaction.

        None where they have been suspended, or have another password hash than was `verified`.
        """
        statement = (
            select(User)
            .where(User.id == user_id, User.password_hash == verified, User.suspended_at.is_(None))
            .with_for_update(key_share=True)
        )
        return (await self.session.execute(statement)).scalar_one_or_none()

    async def organizations_of(self, user_id: UUID) -> list[Organization]:
        """Where the user is a member, by slug."""
        statement = (
            select(Organization)
            .join(Membership, Membership.org_id == Organization.id)
            .where(Membership.user_id == user_id)
            .order_by(Organization.slug)
        )
        return list((await self.session.execute(statement)).scalars())

    async def person(self, user_id: UUID, org_id: UUID, project_id: UUID | None) -> Person:
        """Names for what a credential stands for."""
        statement = (
            select(User, Organization, Project)
            .select_from(User)
            .join(Organization, Organization.id == org_id)
            .outerjoin(Project, (Project.org_id == org_id) & (Project.id == project_id))
            .where(User.id == user_id)
        )
        return Person(*(await self.session.execute(statement)).one())

    async def members(self, org_id: UUID, user_ids: Iterable[UUID]) -> dict[UUID, Known]:
        """Those of the users who are members of the organization."""
        statement = (
            select(User.id, User.name, User.email)
            .join(Membership, Membership.user_id == User.id)
            .where(Membership.org_id == org_id, User.id.in_(user_ids))
        )
        return {row.id: Known(row.name, row.email) for row in await self.session.execute(statement)}

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


def _is_named(project: str | None, org_id: InstrumentedAttribute[UUID]) -> ColumnElement[bool]:
    """Whether a row of projects is the one that an id or a slug names; never, where none is named."""
    if project is None:
        return false()
    project_id = as_uuid(project)
    named = Project.slug == project if project_id is None else Project.id == project_id
    return and_(Project.org_id == org_id, named)


class Projects(Repository[Project]):
    """Projects of one organization."""

    model = Project
    noun = "project"
    by_project = False
    sorts: ClassVar[Sorts] = {"created_at": Project.created_at, "name": Project.name}
    large = (Project.settings,)

    def visible(self) -> Select[Project]:
        """All of the organization, or the one that the tenant names."""
        statement = super().visible()
        project_id = self.tenant.project_id
        return statement if project_id is None else statement.where(Project.id == project_id)

    async def lock_out(self, project: Project) -> None:
        """Keeps every new row out of the project until commit: its foreign key waits for this lock.

        `project` is then as the last change left it; `NotFound` where that deleted it.
        """
        statement = self.visible().where(Project.id == project.id).with_for_update()
        if await self.one_or_none(statement.execution_options(populate_existing=True)) is None:
            raise self.missing(project.id)

    async def holdings(self, project: Project) -> dict[str, int]:
        """What is in the project that its deletion would take along, and how much of it."""
        counts = [_held(model, project).scalar_subquery().label(noun) for noun, model in HELD.items()]
        row = (await self.session.execute(select(*counts))).one()
        return {noun: count for noun, count in row._mapping.items() if count}


class ApiKeys(Repository[ApiKey]):
    """API keys of one organization."""

    model = ApiKey
    noun = "API key"
    by_project = False
    sorts: ClassVar[Sorts] = {"created_at": ApiKey.created_at, "name": ApiKey.name}

    def live(self) -> Select[ApiKey]:
        """Keys that are not revoked, of the tenant's project where it names one."""
        statement = self.visible().where(ApiKey.revoked_at.is_(None))
        if self.tenant.project_id is not None:
            statement = statement.where(ApiKey.project_id == self.tenant.project_id)
        return statement

    async def revoke(self, row: ApiKey, *, descendants: bool = False) -> None:
        """Ends the key, and with `descendants` every key that it made, and those made, and so on."""
        ids = [row.id]
        if descendants:
            family = self._made_by(row.id)
            ids += (await self.session.execute(select(family.c.id))).scalars()
        await self.session.execute(
            update(ApiKey)
            .where(ApiKey.org_id == self.tenant.org_id, ApiKey.id.in_(ids), ApiKey.revoked_at.is_(None))
            .values(revoked_at=func.now())
            .execution_options(synchronize_session=False)
        )

    def _made_by(self, key_id: UUID) -> CTE:
        mine = ApiKey.org_id == self.tenant.org_id
        family = select(ApiKey.id).where(mine, ApiKey.made_by == key_id).cte(recursive=True)
        return family.union(select(ApiKey.id).where(mine, ApiKey.made_by == family.c.id))
