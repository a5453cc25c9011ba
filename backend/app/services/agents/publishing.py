"""Versions of agents: published, found, brought back, and what stood between two of them."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import Catalog
from app.agent.graph.changes import GraphDiff
from app.agent.graph.diff import compare
from app.agent.graph.issues import Findings, InvalidGraph
from app.agent.graph.limits import check_size
from app.agent.graph.schema import AgentGraph
from app.core.constants import MAX_DIGITS
from app.core.errors import AppError, Conflict, NotFound
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.slugs import as_uuid
from app.db.base import Json
from app.db.postgres.models.agents import Agent, AgentVersion
from app.db.postgres.repositories.agents import Agents, AgentVersions, archived
from app.db.postgres.repositories.identity import Identities, Known
from app.services.agents.drafts import Drafts

LIVE, DRAFT = "live", "draft"


class Released(NamedTuple):
    """The version that is live now; `fresh` where this made it."""

    version: AgentVersion
    fresh: bool


class Compared(NamedTuple):
    """What makes `after` of `before`; each None where it is the draft."""

    before: AgentVersion | None
    after: AgentVersion | None
    diff: GraphDiff


@dataclass(slots=True)
class Publishing(Drafts):
    """The newest version is the live one, so the list of versions tells what was live when, and by whom."""

    async def publish(self, reference: str, *, note: str = "") -> AgentVersion:
        """The version that `release` answers."""
        return (await self.release(reference, note=note)).version

    async def release(
        self, reference: str, *, note: str = "", revisions: Collection[int] | None = None
    ) -> Released:
        """The draft as the next immutable version, which is live from now; `InvalidGraph` with the report.

        Where the live version is already the same, with the same things bound, it stays, and `note` is
        dropped: repeating a publication does nothing. `Conflict` where the agent is archived.
        """
        catalog = await self.catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.editable(reference)
            agents.demand_revision(agent, revisions)
            catalog = await self.with_agents(session, catalog, agent.draft)
            graph = self.checked(agent.draft, catalog)
            return await self.released(session, agent, graph, catalog, note=note)

    async def released(
        self, session: AsyncSession, agent: Agent, graph: AgentGraph, catalog: Catalog, *, note: str
    ) -> Released:
        """Makes the draft, which `graph` is, live."""
        bindings = await self.bound(session, graph, agent, catalog)
        live = await self._live(session, agent)
        if live is not None and _same(live, graph, bindings):
            return Released(live, fresh=False)
        version = AgentVersion(
            graph=agent.draft, bindings=bindings, content_hash=graph.content_hash, note=note, restores=None
        )
        return await self._made_live(session, agent, version)

    async def is_live(self, session: AsyncSession, agent: Agent, graph: AgentGraph, catalog: Catalog) -> bool:
        """Whether publishing `graph` would change nothing."""
        live = await self._live(session, agent)
        return live is not None and _same(live, graph, await self.bound(session, graph, agent, catalog))

    async def _live(self, session: AsyncSession, agent: Agent) -> AgentVersion | None:
        if agent.live_version is None:
            return None
        return await AgentVersions(session, self.tenant).number(agent.id, agent.live_version)

    async def _made_live(self, session: AsyncSession, agent: Agent, version: AgentVersion) -> Released:
        """Adds a version, whose row has its content and nothing else yet."""
        versions = AgentVersions(session, self.tenant)
        version.org_id, version.id, version.agent_id = self.tenant.org_id, new_id(), agent.id
        version.version = await versions.newest_number(agent.id) + 1
        version.author_id = self.principal
        await versions.add(version)
        agent.live_version = version.version
        return Released(version, fresh=True)

    async def rollback(
        self, reference: str, number: int, *, note: str = "", revisions: Collection[int] | None = None
    ) -> Released:
        """What version `number` was, as a new version, which is live from now. The draft stays.

        What its names stood for then they stand for again, where that is still there, else what they stand
        for today. `InvalidGraph` where something is missing, `Conflict` where the agent is archived.
        """
        catalog = await self.catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            agents = Agents(session, self.tenant)
            agent = await agents.editable(reference)
            agents.demand_revision(agent, revisions)
            old = await self.version_of(session, agent, str(number))
            if agent.live_version == number:
                return Released(old, fresh=False)
            catalog = await self.with_agents(session, catalog, old.graph)
            graph = self.checked(_bound_as_then(old, catalog), catalog)
            version = AgentVersion(
                graph=old.graph,
                bindings=await self.bound(session, graph, agent, catalog),
                content_hash=old.content_hash,
                note=note or f"Rollback to version {number}",
                restores=number,
            )
            return await self._made_live(session, agent, version)

    async def versions(self, reference: str, request: PageRequest) -> Page[AgentVersion]:
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            versions = AgentVersions(session, self.tenant)
            return await versions.page(request, versions.published(agent.id))

    async def version(self, reference: str, version: str) -> AgentVersion:
        """The version that `version`, a number, an id or `live`, names."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            return await self.named(session, agent, version)

    async def authors(self, versions: Iterable[AgentVersion]) -> dict[UUID, Known]:
        """Who published them, by id: members of the organization, as far as the caller may know them."""
        ids = {version.author_id for version in versions if version.author_id is not None}
        if not ids or not self.sees_people:
            return {}
        async with self.database.system_work() as session:
            return await Identities(session).members(self.tenant.org_id, ids)

    async def difference(self, reference: str, *, before: str, after: str) -> Compared:
        """What makes `after` of `before`: each a version's number or id, `live` or `draft`."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            old, new = [
                None if name == DRAFT else await self.named(session, agent, name) for name in (before, after)
            ]
        graphs = [agent.draft if version is None else version.graph for version in (old, new)]
        return Compared(old, new, difference(*graphs))

    async def snapshot(self, reference: str) -> AgentVersion:
        """The draft as it is now, to be run: an unpublished version; `InvalidGraph` with the report."""
        catalog = await self.catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            if agent.archived_at is not None:
                raise archived(agent.slug)
            catalog = await self.with_agents(session, catalog, agent.draft)
            graph = self.checked(agent.draft, catalog)
            bindings = await self.bound(session, graph, agent, catalog)
            # What the names stand for may change under an unchanged draft.
            bound = sha256(f"{graph.content_hash} {json.dumps(bindings, sort_keys=True)}".encode())
            return await AgentVersions(session, self.tenant).snapshot(
                agent.id, graph=agent.draft, bindings=bindings, content_hash=bound.hexdigest()
            )

    async def unrunnable(self, reference: str, version: str | int) -> AppError:
        """Why there is no such version to run."""
        agent = await self.get(reference)
        if agent.archived_at is not None:
            return archived(agent.slug)
        if version == LIVE:
            return _not_published(agent, "publish it, or run version 'draft'")
        async with self.database.unit_of_work(self.tenant) as session:
            return await self._no_version(session, agent, str(version))

    async def named(self, session: AsyncSession, agent: Agent, reference: str) -> AgentVersion:
        """`version_of`, which may also be `live`; `Conflict` where nothing is."""
        if reference != LIVE:
            return await self.version_of(session, agent, reference)
        live = await self._live(session, agent)
        if live is None:
            raise _not_published(agent, "publish it first")
        return live

    async def version_of(self, session: AsyncSession, agent: Agent, reference: str) -> AgentVersion:
        """The version of `agent` that a number or an id names."""
        version_id = as_uuid(reference)
        versions = AgentVersions(session, self.tenant)
        if version_id is not None:
            found = await versions.of(agent.id, version_id)
        else:
            number = int(reference) if reference.isdecimal() and len(reference) <= MAX_DIGITS else 0
            found = await versions.number(agent.id, number)
        if found is None:
            raise await self._no_version(session, agent, reference)
        return found

    async def _no_version(self, session: AsyncSession, agent: Agent, named: str) -> NotFound:
        newest = await AgentVersions(session, self.tenant).newest_number(agent.id)
        known = f"its versions are 1 to {newest}" if newest else "nothing of it was published yet"
        return NotFound(f"The agent {agent.slug!r} has no version {named!r}: {known}.")


def difference(before: Json, after: Json) -> GraphDiff:
    """What makes `after` of `before`, without what is only written differently, where both can be read.

    `InvalidGraph` where one is too large to be looked at.
    """
    for graph in (before, after):
        findings = Findings()
        if not check_size(graph, findings):
            raise InvalidGraph(findings.report(graph))
    try:
        graphs = [AgentGraph.model_validate(graph) for graph in (before, after)]
    except ValidationError:
        return compare(before, after)
    return compare(*(graph.document() for graph in graphs))


def _same(live: AgentVersion, graph: AgentGraph, bindings: Json) -> bool:
    return live.content_hash == graph.content_hash and live.bindings == bindings


def _bound_as_then(version: AgentVersion, catalog: Catalog) -> Json:
    """A version's graph, its collections named by the ids that are still there."""
    then: dict[str, str] = version.bindings.get("collections", {})
    bindings = version.graph.get("bindings", {})
    collections = {
        name: then[name] if then.get(name) in catalog.collections else target
        for name, target in bindings.get("collections", {}).items()
    }
    return version.graph | {"bindings": bindings | {"collections": collections}}


def _not_published(agent: Agent, what_to_do: str) -> Conflict:
    return Conflict(f"The agent {agent.slug!r} has no published version: {what_to_do}.", code="not_published")
