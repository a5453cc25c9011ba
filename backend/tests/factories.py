"""Valid-by-default rows, files and models for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from app.agent.core.interfaces import Capability, ChatEvent, ChatRequest, Finished, TextDelta
from app.core.ids import new_id
from app.core.security import api_key_digest, api_key_hint, new_api_key
from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, Role, User
from app.db.postgres.models.registry import ModelKind, ModelRegistry
from app.db.postgres.repositories.identity import Identities, Projects
from app.db.postgres.repositories.registry import Models
from app.db.session import Tenant
from app.resources import Resources

PASSWORD = "correct horse battery staple"
CHEAP_ARGON2 = PasswordHash((Argon2Hasher(time_cost=1, memory_cost=64, parallelism=1),))


@dataclass(frozen=True, slots=True)
class Member:
    """A user with a key of one project."""

    user_id: UUID
    tenant: Tenant
    key: str


@dataclass(frozen=True, slots=True)
class Person:
    """A user with a password, member of `tenant`."""

    user_id: UUID
    tenant: Tenant
    email: str

    @property
    def login(self) -> dict[str, Any]:
        return {"email": self.email, "password": PASSWORD}


@dataclass(frozen=True, slots=True)
class Gate:
    """A chat model that says one word and waits until it is `opened` for the rest."""

    slug: str
    name: str = "gate"
    capabilities: frozenset[Capability] = frozenset({Capability.STREAMING})
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        yield TextDelta("Wait")
        self.entered.set()
        await self.opened.wait()
        yield TextDelta(" is over")
        yield Finished()


@dataclass(slots=True)
class Factory:
    resources: Resources

    async def member(
        self, *, role: Role = Role.OWNER, of: Tenant | None = None, permissions: list[str] | None = None
    ) -> Member:
        """A member of a fresh organization, or of the one given."""
        user = User(id=new_id(), email=f"{new_id().hex}@example.test")
        rows: list[Any] = [user]
        if of is None:
            organization = Organization(id=new_id(), slug=f"o-{new_id().hex}", name="Test")
            project = Project(org_id=organization.id, id=new_id(), slug="default", name="Default")
            of = Tenant(organization.id, project.id)
            rows += [organization, project]
        rows.append(Membership(org_id=of.org_id, id=new_id(), user_id=user.id, role=role))
        async with self.resources.database.system_work() as session:
            await Identities(session).add(*rows)
        return await self.key(Member(user.id, of, ""), permissions=permissions)

    async def person(self, *, role: Role = Role.OWNER, of: Tenant | None = None) -> Person:
        """Somebody who can log in: a member of an organization that has another owner."""
        member = await self.member(role=role, of=of or (await self.member()).tenant)
        async with self.resources.database.system_work() as session:
            user = await session.get_one(User, member.user_id)
            user.password_hash = CHEAP_ARGON2.hash(PASSWORD)
        return Person(member.user_id, member.tenant, user.email)

    async def join(self, person: Person, role: Role = Role.MEMBER) -> Tenant:
        """Makes the person a member of another, fresh organization too."""
        other = (await self.member()).tenant
        membership = Membership(org_id=other.org_id, id=new_id(), user_id=person.user_id, role=role)
        async with self.resources.database.system_work() as session:
            await Identities(session).add(membership)
        return other

    async def key(
        self,
        member: Member,
        *,
        permissions: list[str] | None = None,
        expires_at: datetime | None = None,
        unbound: bool = False,
    ) -> Member:
        """Another key of `member`, of the same project or, `unbound`, of the whole organization."""
        key = new_api_key(new_id())
        row = ApiKey(
            org_id=member.tenant.org_id,
            id=new_id(),
            project_id=None if unbound else member.tenant.project_id,
            user_id=member.user_id,
            name="test",
            hint=api_key_hint(key),
            digest=api_key_digest(key, self.resources.auth.pepper),
            permissions=permissions,
            expires_at=expires_at,
        )
        async with self.resources.database.system_work() as session:
            await Identities(session).add(row)
        return Member(member.user_id, member.tenant, key)

    async def project(self, member: Member, *, slug: str = "second") -> Tenant:
        """Another project of the member's organization."""
        project = Project(org_id=member.tenant.org_id, id=new_id(), slug=slug, name=slug.title())
        async with self.resources.database.unit_of_work(member.tenant) as session:
            await Projects(session, member.tenant).add(project)
        return Tenant(member.tenant.org_id, project.id)

    async def gate(self, member: Member) -> Gate:
        """A logical model of the member's project that waits for the test."""
        gate = Gate(slug=f"gate-{new_id().hex[-12:]}")
        self.resources.providers[gate.slug] = lambda _: gate
        await self.model(member, provider=gate.slug, model="gate", slug=gate.slug)
        return gate

    async def model(self, member: Member, *, provider: str, model: str, slug: str = "", **config: Any) -> str:
        """A logical model of the member's project; its slug."""
        row = ModelRegistry(
            org_id=member.tenant.org_id,
            id=new_id(),
            project_id=member.tenant.project,
            slug=slug or f"model-{new_id().hex[-12:]}",
            kind=ModelKind.CHAT,
            provider=provider,
            model=model,
            config=config,
        )
        async with self.resources.database.unit_of_work(member.tenant) as session:
            await Models(session, member.tenant).add(row)
        return row.slug
