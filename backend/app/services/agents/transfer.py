"""Agents as self-contained documents: taken out, and taken in with other things bound."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.core.interfaces import Catalog
from app.agent.graph.changes import GraphDiff
from app.agent.graph.checks.bindings import existing_targets
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.portable import PortableAgent, capabilities, configs_in, requirements
from app.agent.graph.schema import AgentGraph, Bindings
from app.core.errors import Conflict, FieldError, Invalid
from app.core.report import Report
from app.core.slugs import as_uuid, check_slug
from app.db.base import Json
from app.db.postgres.models.agents import Agent
from app.db.postgres.repositories.agents import Agents, archived
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.rag import Collections
from app.db.postgres.repositories.registry import Models
from app.db.postgres.repositories.secrets import Secrets
from app.services.agents.publishing import DRAFT, Publishing, Released, difference

_SUGGESTED = 10
_BOUND: dict[str, type[Repository[Any]]] = {"models": Models, "collections": Collections, "agents": Agents}
"""Where the slug of a binding's target is found, if the binding has its id."""


class OnConflict(StrEnum):
    """What an import does where there is an agent with the slug already."""

    FAIL = "fail"
    UPDATE = "update"


class Action(StrEnum):
    """What an import does, or would do: `conflict` stands for nothing, because the slug is taken."""

    CREATE = "create"
    UPDATE = "update"
    UNCHANGED = "unchanged"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class BoundName:
    """A name in the graph's bindings, and what it is bound to. Suggested are slugs of what would do here."""

    kind: str
    name: str
    target: str
    resolved: bool
    suggestions: list[str]


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """`bindings` replace targets, by kind and name; `slug` replaces the document's."""

    document: PortableAgent
    bindings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    slug: str | None = None
    on_conflict: OnConflict = OnConflict.FAIL
    publish: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did or would do to the agent `slug`; `diff` begins at the draft of before.

    `agent` is None where it is not there; `publishes` whether there is, or would be, a new version.
    """

    action: Action
    slug: str
    bindings: list[BoundName]
    diff: GraphDiff
    report: Report
    publishes: bool
    agent: Agent | None = None
    release: Released | None = None


@dataclass(slots=True)
class Transfer(Publishing):
    """Each import is one transaction."""

    async def export(self, reference: str, version: str) -> PortableAgent:
        """The agent with the graph of `version` (number, id, `live`, `draft`); `InvalidGraph` where that is
        too unfinished to be read."""
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(reference)
            found = None if version == DRAFT else await self.named(session, agent, version)
            graph = await self._portable(session, agent.draft if found is None else found.graph)
        return PortableAgent(
            kind="agent",
            schema_version="1",
            slug=agent.slug,
            name=agent.name,
            description=agent.description,
            graph=graph.document(),
            requires=requirements(graph),
        )

    async def import_(self, request: ImportRequest) -> Imported:
        """Creates or updates the draft, and publishes it if that is asked for.

        Raises `Conflict` where the slug is taken and `on_conflict` does not say what to do, or where the
        agent is archived; `InvalidGraph` where it is to be published and cannot be.
        """
        slug, graph, catalog = _slug(request), _bound_graph(request), await self.catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            catalog = await self.with_agents(session, catalog, graph)
            agent = await Agents(session, self.tenant).slugged(slug)
            foreseen = await self._foreseen(session, agent, request, graph, catalog=catalog)
            if foreseen.action is Action.CONFLICT:
                raise Conflict(
                    f"There is an agent {slug!r} already: choose another slug, or say on_conflict 'update'.",
                    code="duplicate",
                )
            wanted = request.document
            details: Json = {"name": wanted.name, "description": wanted.description, "graph": graph}
            if agent is None:
                agent = await self.added(
                    session, wanted.name, slug, description=wanted.description, graph=graph
                )
            elif foreseen.action is Action.UPDATE:
                agent = await self.changed(session, agent, details)
            release = await self._published(session, agent, request, foreseen.report, catalog)
        return Imported(
            foreseen.action, slug, foreseen.bindings, foreseen.diff, foreseen.report,
            publishes=release is not None and release.fresh, agent=agent, release=release,
        )  # fmt: skip

    async def foresee(self, request: ImportRequest) -> Imported:
        """What `import_` would do; it does nothing."""
        slug, graph, catalog = _slug(request), _bound_graph(request), await self.catalog()
        async with self.database.unit_of_work(self.tenant) as session:
            catalog = await self.with_agents(session, catalog, graph)
            agent = await Agents(session, self.tenant).slugged(slug)
            return await self._foreseen(session, agent, request, graph, catalog=catalog)

    async def _foreseen(
        self,
        session: AsyncSession,
        agent: Agent | None,
        request: ImportRequest,
        graph: Json,
        *,
        catalog: Catalog,
    ) -> Imported:
        if agent is not None and agent.archived_at is not None:
            raise archived(agent.slug)
        report = self.compiler.check(graph, catalog)
        diff = difference(agent.draft if agent else {}, graph)
        publishes = request.publish and report.valid
        if publishes and agent is not None:
            publishes = not await self.is_live(session, agent, AgentGraph.model_validate(graph), catalog)
        return Imported(
            _action(agent, request, diff), _slug(request), _names(graph, catalog), diff, report,
            publishes=publishes, agent=agent,
        )  # fmt: skip

    async def _published(
        self,
        session: AsyncSession,
        agent: Agent,
        request: ImportRequest,
        report: Report,
        catalog: Catalog,
    ) -> Released | None:
        if not request.publish:
            return None
        if report.errors:
            raise InvalidGraph(report)
        graph = AgentGraph.model_validate(agent.draft)
        return await self.released(session, agent, graph, catalog, note=request.note)

    async def _portable(self, session: AsyncSession, graph: Json) -> AgentGraph:
        """The graph with slugs in place of ids; an id of nothing gives way to the name bound to it."""
        try:
            document = AgentGraph.model_validate(graph).document()
        except ValidationError as error:
            raise InvalidGraph(self.compiler.check(graph)) from error
        for kind, bound in document.get("bindings", {}).items():
            slugs = await self._slugs(session, _BOUND.get(kind), bound.values())
            for name, target in bound.items():
                if as_uuid(target):
                    bound[name] = slugs.get(UUID(target), name.replace("_", "-"))
        if self.sees_secrets:
            named = list(_secrets(document))
            slugs = await self._slugs(session, Secrets, (place[key] for place, key in named))
            for place, key in named:
                place[key] = slugs.get(as_uuid(place[key]), place[key])
        return AgentGraph.model_validate(document)

    async def _slugs(
        self, session: AsyncSession, table: type[Repository[Any]] | None, targets: Iterable[str]
    ) -> dict[UUID | None, str]:
        ids = [found for target in targets if (found := as_uuid(target))]
        if table is None or not ids:
            return {}
        return dict[UUID | None, str]((await table(session, self.tenant).slugs(ids)).items())


def _slug(request: ImportRequest) -> str:
    if request.slug is not None:
        return check_slug(request.slug)
    return check_slug(request.document.slug, pointer="/body/document/slug")


def _action(agent: Agent | None, request: ImportRequest, diff: GraphDiff) -> Action:
    wanted = request.document
    if agent is None:
        return Action.CREATE
    if request.on_conflict is OnConflict.FAIL:
        return Action.CONFLICT
    same = diff.empty and (agent.name, agent.description) == (wanted.name, wanted.description)
    return Action.UNCHANGED if same else Action.UPDATE


def _bound_graph(request: ImportRequest) -> Json:
    """The document's graph, bound as the request says. `Invalid` where it binds a name that is not there."""
    graph = request.document.graph
    given = graph.get("bindings", {})
    bindings: Json = {**given} if isinstance(given, dict) else {}
    wrong = []
    for kind, targets in request.bindings.items():
        bound = bindings.get(kind, {})
        known = sorted(bound) if isinstance(bound, dict) else []
        for name in sorted(targets.keys() - set(known)):
            message = (
                f"the document binds no {kind} by the name {name!r}; it binds: {', '.join(known) or 'none'}"
            )
            wrong.append(FieldError(f"/body/bindings/{kind}/{name}", "unknown_name", message))
        if targets and known:
            bindings[kind] = bound | dict(targets)
    if wrong:
        raise Invalid("; ".join(error.message for error in wrong), code="unknown_name", errors=wrong)
    return graph | {"bindings": bindings} if request.bindings else dict(graph)


def _names(graph: Json, catalog: Catalog) -> list[BoundName]:
    """Every name that is bound, with what would do in its place."""
    try:
        read = AgentGraph.model_validate(graph)
    except ValidationError:
        return []
    needed, existing, found = capabilities(read.document()), existing_targets(catalog), []
    for kind in Bindings.model_fields:
        here = existing.get(kind, ())
        for name, target in getattr(read.bindings, kind).items():
            able = [
                slug
                for slug in here
                if as_uuid(slug) is None
                and (kind != "models" or needed.get(name, frozenset()) <= catalog.models[slug])
            ]
            found.append(BoundName(kind, name, target, target in here, _suggested(target, able)))
    return found


def _suggested(target: str, able: list[str]) -> list[str]:
    """The likeliest first."""
    near = get_close_matches(target, able, n=3)
    return [*near, *sorted(set(able) - set(near))][:_SUGGESTED]


def _secrets(document: Json) -> Iterable[tuple[Json, str]]:
    """Where a document names secrets: the object, and the key in it."""
    for kind, config, _ in configs_in(document):
        for path, _name in kind.secrets(config):
            *way, key = path
            place: Any = config
            for part in way:
                place = place[part]
            yield place, str(key)
