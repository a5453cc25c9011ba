"""What an agent would do here, told without running it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.explaining import explained
from app.agent.graph.plan import Plan
from app.agent.graph.ports import InvalidInput
from app.agent.graph.schema import Bindings
from app.api.schemas.explanations import AgentExplanation, BoundRead, InputRead, WrongField
from app.core.errors import AppError, NotFound
from app.db.base import Json
from app.db.postgres.models.agents import AgentVersion
from app.db.postgres.repositories.agents import Agents
from app.db.postgres.repositories.rag import Collections
from app.services.agents.publishing import Publishing


@dataclass(slots=True)
class Explaining(Publishing):
    """Looks at graphs, versions and drafts."""

    async def explain(self, graph: Any, given: Any = None) -> AgentExplanation:
        """What `graph` would do in this project, and what it says of `given`, an input, if that is not None.

        `InvalidGraph` where it has no plan; what only the project lacks is among the issues.
        """
        agent = ExecutableAgent(self.compiler.compile(graph))
        report = await self.check(graph)
        bindings = [part async for part in self._bound(agent.plan)]
        return AgentExplanation(
            plan=explained(agent.plan),
            bindings=bindings,
            issues=report.issues,
            input=None if given is None else _held_against(agent, given),
        )

    async def explain_agent(
        self, reference: str, *, version: str | None = None, graph: Any = None, given: Any = None
    ) -> AgentExplanation:
        """The same for `graph`, or a version, or else the draft of an agent."""
        if graph is None:
            stored = self.version(reference, version) if version else self.get(reference)
            found = await stored
            graph = found.graph if isinstance(found, AgentVersion) else found.draft
        return await self.explain(graph, given)

    async def _bound(self, plan: Plan) -> AsyncIterator[BoundRead]:
        """What the names of the plan's `bindings` stand for now."""
        for kind in Bindings.model_fields:
            for name, target in getattr(plan.bindings, kind).items():
                found, problem = None, None
                try:
                    found = await self._found(kind, target)
                except AppError as error:
                    problem = error.detail
                yield BoundRead(kind=kind, name=name, target=target, stands_for=found, problem=problem)

    async def _found(self, kind: str, target: str) -> Json:
        if kind == "models":
            resolved = asdict(await self.models.resolve(target))
            return {key: resolved[key] for key in ("provider", "model", "capabilities", "why", "problem")}
        async with self.database.unit_of_work(self.tenant) as session:
            if kind == "collections":
                collection = await Collections(session, self.tenant).find(target)
                return {"id": str(collection.id), "name": collection.name}
            if kind == "agents":
                slug, _, number = target.partition("@")
                agent = await Agents(session, self.tenant).find(slug)
                locked = int(number) if number.isdecimal() else agent.live_version
                return {"id": str(agent.id), "name": agent.name, "version": locked}
        raise NotFound(f"Nothing is known of {kind} here.")


def _held_against(agent: ExecutableAgent, given: Any) -> InputRead:
    try:
        return InputRead(valid=True, value=agent.validate_input(given), errors=[])
    except InvalidInput as error:
        wrong = [WrongField(pointer=e.pointer, code=e.code, message=e.message) for e in error.errors]
        return InputRead(valid=False, value=None, errors=wrong)
