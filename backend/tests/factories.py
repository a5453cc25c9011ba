"""Valid-by-default rows and files for tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.core.ids import new_id
from app.core.security import api_key_digest, api_key_hint, new_api_key
from app.db.postgres.models.identity import ApiKey, Membership, Organization, Project, Role, User
from app.db.postgres.repositories.identity import Identities
from app.db.session import Tenant
from app.resources import Resources

HELLO_GRAPH: dict[str, Any] = {
    "schema_version": "1",
    "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "interface": {"message": "name", "answer": "text"},
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "greet", "type": "template", "config": {"text": "Hello, {{ inputs.name }}!"}},
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
    ],
    "edges": [{"source": "start", "target": "greet"}, {"source": "greet", "target": "done"}],
}


@dataclass(frozen=True, slots=True)
class Member:
    """A user with a key of one project."""

    user_id: UUID
    tenant: Tenant
    key: str


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
        key = new_api_key(new_id())
        rows.append(
            ApiKey(
                org_id=of.org_id,
                id=new_id(),
                project_id=of.project_id,
                user_id=user.id,
                name="test",
                hint=api_key_hint(key),
                digest=api_key_digest(key, self.resources.auth.pepper),
                permissions=permissions,
            )
        )
        async with self.resources.database.system_work() as session:
            await Identities(session).add(*rows)
        return Member(user.id, of, key)
