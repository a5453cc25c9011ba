"""`orrery keys create`: a key made on the machine itself, for the installation's owner."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from app.cli.local_database import open_database
from app.core.config import Settings
from app.core.permissions import ALL
from app.services.auth_service import AuthContext, AuthService
from app.services.installation_service import api_key_pepper


@dataclass(frozen=True, slots=True)
class MadeKey:
    id: UUID
    key: str


async def create_key(
    settings: Settings,
    database_url: str,
    *,
    name: str,
    permissions: list[str] | None,
    project: str | None,
) -> MadeKey:
    """Whoever can read the data folder may do this; it needs no other key."""
    async with open_database(settings, database_url) as database:
        auth = AuthService(database, await api_key_pepper(database, settings))
        owner = await auth.owner()
        caller = AuthContext(owner.user_id, owner.tenant, ALL)
        row, key = await auth.create_key(
            caller, name=name, permissions=permissions, project=project or "default"
        )
        return MadeKey(row.id, key)
