"""Published agents as parts of others."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.slugs import as_uuid, is_slug
from app.db.base import Json
from app.db.session import Tenant

_PUBLISHED = text(
    """
    WITH known AS (
        SELECT *, slug = ANY(CAST(:slugs AS text[])) OR id = ANY(CAST(:ids AS uuid[])) AS named FROM agents
        WHERE org_id = :org AND project_id = :project AND deleted_at IS NULL AND archived_at IS NULL
    )
    SELECT a.slug, a.id, v.id AS version_id, v.version, v.version = a.live_version AS live,
        CASE WHEN a.named AND v.version = a.live_version THEN (v.graph -> 'inputs')::text END AS inputs,
        CASE WHEN a.named AND v.version = a.live_version THEN jsonb_path_query_array(v.graph,
            'lax $.nodes[*] ? (@.type == "end").config.output.keyvalue().key')::text END AS outputs
    FROM known a JOIN agent_versions v ON v.org_id = a.org_id AND v.agent_id = a.id
    WHERE v.version = a.live_version OR a.named AND v.version IS NOT NULL
    ORDER BY a.named DESC, live DESC, v.created_at DESC LIMIT :most
    """
)
_CALLED = text(
    """
    WITH RECURSIVE called AS (
        SELECT v.id, v.agent_id, v.bindings FROM agent_versions v
        WHERE v.org_id = :org AND v.id = ANY(CAST(:versions AS uuid[]))
        UNION
        SELECT v.id, v.agent_id, v.bindings FROM called c
        CROSS JOIN LATERAL jsonb_each_text(COALESCE(c.bindings -> 'agents', '{}')) AS b
        JOIN agent_versions v ON v.org_id = :org AND v.id::text = b.value
    )
    SELECT DISTINCT agent_id FROM called
    """
)
_CALLERS = text(
    """
    SELECT a.slug FROM agents a
    JOIN agent_versions v ON v.org_id = a.org_id AND v.agent_id = a.id AND v.version = a.live_version
    WHERE a.org_id = :org AND a.project_id = :project AND a.deleted_at IS NULL AND a.id <> :agent
        AND EXISTS (
            SELECT FROM jsonb_each_text(COALESCE(v.bindings -> 'agents', '{}')) AS b
            JOIN agent_versions t ON t.org_id = a.org_id AND t.id::text = b.value AND t.agent_id = :agent)
    ORDER BY a.slug
    """
)
_MOST = 5000


@dataclass(frozen=True, slots=True)
class PublishedVersion:
    """`inputs`, a JSON Schema, and the names of `outputs` are known only where it is live and was named."""

    slug: str
    agent_id: UUID
    version_id: UUID
    version: int
    live: bool
    inputs: Json | None
    outputs: list[str] | None


@dataclass(frozen=True, slots=True)
class SubAgents:
    """The agents of one project as others see them."""

    session: AsyncSession
    tenant: Tenant

    async def published(self, named: Collection[str]) -> list[PublishedVersion]:
        """Every version of the agents that are named (`slug`, `slug@2`, id), the live one first; then the
        live versions of the others, which could have been meant."""
        wanted = {
            "org": self.tenant.org_id,
            "project": self.tenant.project,
            "slugs": [slug for name in named if is_slug(slug := name.partition("@")[0])],
            "ids": [found for name in named if (found := as_uuid(name))],
            "most": _MOST,
        }
        rows = (await self.session.execute(_PUBLISHED, wanted)).all()
        return [_version(*row) for row in rows]

    async def called_by(self, versions: Collection[UUID]) -> set[UUID]:
        """The agents of these versions and all that they call in turn."""
        wanted = {"org": self.tenant.org_id, "versions": list(versions)}
        return set((await self.session.execute(_CALLED, wanted)).scalars())

    async def callers(self, agent_id: UUID) -> list[str]:
        """The other agents whose live version calls some version of this one."""
        wanted = {"org": self.tenant.org_id, "project": self.tenant.project, "agent": agent_id}
        return list((await self.session.execute(_CALLERS, wanted)).scalars())


def _version(
    slug: str, agent_id: UUID, version_id: UUID, version: int, live: bool, *json_: Any
) -> PublishedVersion:
    inputs, outputs = map(_value, json_)
    return PublishedVersion(slug, agent_id, version_id, version, live, inputs, outputs)


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)
