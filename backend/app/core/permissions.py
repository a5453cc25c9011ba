"""Permissions, and which of them each role carries. API keys can only narrow those of their owner."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum


class Permission(StrEnum):
    AGENTS_READ = "agents:read"
    AGENTS_WRITE = "agents:write"
    AGENTS_RUN = "agents:run"
    COLLECTIONS_READ = "collections:read"
    COLLECTIONS_WRITE = "collections:write"
    DOCUMENTS_READ = "documents:read"
    DOCUMENTS_WRITE = "documents:write"
    SEARCH = "search"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    MODELS_READ = "models:read"
    MODELS_WRITE = "models:write"
    TOOLS_READ = "tools:read"
    TOOLS_WRITE = "tools:write"
    CONNECTIONS_READ = "connections:read"
    CONNECTIONS_WRITE = "connections:write"
    KEYS_READ = "keys:read"
    KEYS_WRITE = "keys:write"
    PROJECTS_READ = "projects:read"
    PROJECTS_WRITE = "projects:write"
    SECRETS_READ = "secrets:read"
    SECRETS_WRITE = "secrets:write"
    USERS_READ = "users:read"
    ACCOUNT = "account"  # one's own sessions and password


_CREDENTIALS = {Permission.KEYS_READ, Permission.SECRETS_READ, Permission.CONNECTIONS_READ}
READ = frozenset(p for p in Permission if p.value.endswith(":read")) - _CREDENTIALS
MEMBER = READ | {
    Permission.SECRETS_READ,
    Permission.CONNECTIONS_READ,
    Permission.MODELS_WRITE,
    Permission.TOOLS_WRITE,
    Permission.AGENTS_WRITE,
    Permission.AGENTS_RUN,
    Permission.COLLECTIONS_WRITE,
    Permission.DOCUMENTS_WRITE,
    Permission.JOBS_WRITE,
    Permission.SEARCH,
    Permission.ACCOUNT,
}
ALL = frozenset(Permission)

BY_ROLE: dict[str, frozenset[Permission]] = {
    "owner": ALL,
    "admin": ALL,
    "member": frozenset(MEMBER),
    "viewer": frozenset(READ | {Permission.SEARCH, Permission.ACCOUNT}),
}


def granted(role: str, scopes: Iterable[str] | None) -> frozenset[Permission]:
    """What a credential may do: the role's permissions, narrowed by the key's `scopes` where it has any."""
    held = BY_ROLE.get(role, frozenset())
    return held if scopes is None else held & {p for p in Permission if p.value in set(scopes)}
