"""The cache of node results as one run sees it: its project's, and only of its version."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from pydantic import TypeAdapter
from sqlalchemy import select

from app.agent.core.node_cache import CachedStep
from app.core.ids import stable_id
from app.db.postgres.models.agents import AgentRun, AgentVersion
from app.db.postgres.repositories.node_cache import CachedNodes
from app.db.session import Database, Tenant
from app.services.runs.stored_json import stored_json

logger = structlog.get_logger(__name__)

_STEP: TypeAdapter[CachedStep] = TypeAdapter(CachedStep)
_TRIM_EVERY = 32


@dataclass(frozen=True, slots=True)
class _Place:
    """Whose results a run may find: the agent's, of exactly this graph with exactly these bindings."""

    agent_id: UUID
    version: str


@dataclass(slots=True)
class NodeCaches:
    """Caches for the runs of a process: a result has at most `max_entry` characters, a project's `max_all`.

    The room of a project is looked at from time to time, so that it may be exceeded for a while.
    """

    database: Database
    max_entry: int
    max_all: int
    kept: dict[UUID, int] = field(default_factory=dict)

    def of(self, tenant: Tenant, run_id: UUID) -> RunNodeCache:
        return RunNodeCache(self, tenant, run_id)

    def is_due(self, project_id: UUID) -> bool:
        """Whether the project's room should be looked at, now that something was kept."""
        count = self.kept.pop(project_id, _TRIM_EVERY - 1) + 1
        if count < _TRIM_EVERY:
            self.kept[project_id] = count
            return False
        if len(self.kept) > 10_000:
            self.kept.clear()
        self.kept[project_id] = 0
        return True


@dataclass(slots=True)
class RunNodeCache:
    """Implements `NodeCache` of the engine: whatever fails here is logged, and the node runs."""

    caches: NodeCaches
    tenant: Tenant
    run_id: UUID
    _place: _Place | None = None

    async def find(self, key: str) -> CachedStep | None:
        try:
            async with self.caches.database.unit_of_work(self.tenant) as session:
                place = await self._placed(session)
                value = await CachedNodes(session, self.tenant).find(self._id(place, key))
            return None if value is None else _STEP.validate_python(value)
        except Exception as error:
            logger.warning("node_cache_unread", run_id=str(self.run_id), error=repr(error))
            return None

    async def keep(self, key: str, step: CachedStep, *, ttl_s: float) -> None:
        value = stored_json(_STEP.dump_python(step, mode="json"))
        if value is None or len(value) > self.caches.max_entry:
            return
        try:
            async with self.caches.database.unit_of_work(self.tenant) as session:
                place = await self._placed(session)
                cached = CachedNodes(session, self.tenant)
                row_id = self._id(place, key)
                await cached.keep(row_id, place.agent_id, value, documents=step.documents, ttl_s=ttl_s)
                if self.caches.is_due(self.tenant.project):
                    await cached.trim(self.caches.max_all)
        except Exception as error:
            logger.warning("node_cache_unwritten", run_id=str(self.run_id), error=repr(error))

    def _id(self, place: _Place, key: str) -> UUID:
        return stable_id("node-cache", self.tenant.project, place.agent_id, place.version, key)

    async def _placed(self, session: Any) -> _Place:
        if self._place is None:
            statement = (
                select(AgentRun.agent_id, AgentVersion.content_hash, AgentVersion.bindings)
                .join(
                    AgentVersion,
                    (AgentVersion.org_id == AgentRun.org_id) & (AgentVersion.id == AgentRun.version_id),
                )
                .where(
                    AgentRun.org_id == self.tenant.org_id,
                    AgentRun.project_id == self.tenant.project,
                    AgentRun.id == self.run_id,
                )
            )
            agent_id, content, bindings = (await session.execute(statement)).one()
            bound = json.dumps([content, bindings], sort_keys=True)
            self._place = _Place(agent_id, hashlib.sha256(bound.encode()).hexdigest())
        return self._place
