"""Tools of a project: what a name in a graph stands for right now, ready to be called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from uuid import UUID

import app.agent.tools.kinds  # noqa: F401  (registers the kinds that rows name)
from app.agent.core.interfaces import ToolFailed, ToolOffer
from app.agent.tools.choice import chosen
from app.agent.tools.kind import TOOL_KINDS, Operation, ToolConfig, ToolKind, ToolPorts
from app.agent.tools.registered import RegisteredTool, needs_approval, offered
from app.core.errors import FieldError, Invalid
from app.core.ids import new_id
from app.core.timed_cache import TimedCache
from app.db.postgres.models.registry import ToolApproval
from app.db.postgres.repositories.registry import Tools
from app.db.session import Database, Tenant


@dataclass(frozen=True, slots=True)
class _Known:
    """One tool, read once for all the calls that are made of it."""

    project: tuple[UUID, UUID]
    kind: ToolKind
    config: ToolConfig
    operations: list[Operation]
    approval: ToolApproval


@dataclass(frozen=True, slots=True)
class ToolSources:
    """What this process knows of tools. `forget` it where that changes."""

    database: Database
    cache: TimedCache[tuple[UUID, UUID, str], _Known]

    def forget(self, tenant: Tenant) -> None:
        project = (tenant.org_id, tenant.project)
        self.cache.drop(lambda known: known.project == project)


@dataclass(frozen=True, slots=True)
class Fault:
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Invocation:
    """How one call went."""

    duration_ms: float
    content: Any = None
    text: str = ""
    is_error: bool = False
    error: Fault | None = None

    @property
    def ok(self) -> bool:
        return self.error is None and not self.is_error


@dataclass(frozen=True, slots=True)
class ProjectTools:
    """Tools of one project. Implements `Tools` of the engine; costs a query now and then (`cache`)."""

    sources: ToolSources
    tenant: Tenant
    ports: ToolPorts

    async def tools(self, reference: str) -> Sequence[RegisteredTool]:
        """By slug or id."""
        key = (self.tenant.org_id, self.tenant.project, reference)
        known = await self.sources.cache.get(key, lambda: self._load(reference))
        return [
            RegisteredTool(
                known.kind, known.config, one, needs_approval(known.approval, one.effect), self.ports
            )
            for one in known.operations
        ]

    async def catalog(self) -> Mapping[str, Sequence[ToolOffer]]:
        """What every tool of the project offers, by slug and by id."""
        async with self.sources.database.unit_of_work(self.tenant) as session:
            rows = await Tools(session, self.tenant).offered()
        found: dict[str, Sequence[ToolOffer]] = {}
        for row in rows:
            found[row.slug] = found[str(row.id)] = offered(row.operations, row.approval)
        return found

    async def invoke(self, reference: str, operation: str | None, arguments: Mapping[str, Any]) -> Invocation:
        """One call, whose failure is a result.

        `NotFound` and `UnknownOperation` where there is nothing to call, `Invalid` for wrong arguments.
        """
        tool = chosen(await self.tools(reference), operation, of=reference)
        began = perf_counter()
        try:
            result = await tool.call(arguments, idempotency_key=str(new_id()))
        except ToolFailed as error:
            if error.code == "invalid_arguments":
                raise _invalid(error) from error
            return Invocation(_since(began), error=Fault(error.code, error.detail))
        return Invocation(_since(began), content=result.content, text=result.text, is_error=result.is_error)

    async def _load(self, reference: str) -> _Known:
        async with self.sources.database.unit_of_work(self.tenant) as session:
            row = await Tools(session, self.tenant).find(reference)
        kind = TOOL_KINDS[row.kind]
        return _Known(
            project=(self.tenant.org_id, self.tenant.project),
            kind=kind,
            config=kind.config.model_validate(row.config),
            operations=[Operation.model_validate(operation) for operation in row.operations],
            approval=row.approval,
        )


def _since(began: float) -> float:
    return round((perf_counter() - began) * 1000, 3)


def _invalid(error: ToolFailed) -> Invalid:
    place = "/body/arguments"
    errors = [FieldError(place + one.pointer, one.code, one.message) for one in error.errors]
    return Invalid(error.detail, errors=errors or [FieldError(place, error.code, error.detail)])
