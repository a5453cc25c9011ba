"""The ports of a replay: every way out is closed, no time passes, and what is still worked out is noticed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from app.agent.core.interfaces import ChatModel, Passage
from app.agent.core.limits import EngineLimits
from app.agent.core.sandbox import CodeRunner, Expressions
from app.agent.graph.plan import Plan
from app.agent.graph.ports import Agents, Ports, SystemClock
from app.agent.graph.replaying import Replay
from app.core.errors import Invalid
from app.db.outage import is_outage


def closed_ports(
    replay: Replay, expressions: Expressions, code: CodeRunner, agents: Agents, limits: EngineLimits
) -> Ports:
    """Nothing but expressions, code and the plans of other agents can be had."""
    return Ports(
        models=_NoModels(),
        retriever=_NoRetriever(),
        sink=replay,
        journal=replay,
        clock=_NoWaiting(),
        expressions=_Evaluating(replay, expressions),
        code=_Running(replay, code),
        agents=_Planning(replay, agents),
        limits=limits,
        is_outage=is_outage,
    )


def _closed(what: str) -> Invalid:
    return Invalid(f"A replay reaches no {what}.", code="egress_denied")


class _NoModels:
    async def chat(self, reference: str) -> ChatModel:
        raise _closed("models")


class _NoRetriever:
    async def search(self, collection: str, query: str, *, top_k: int, mode: str) -> list[Passage]:
        raise _closed("collections")


class _NoWaiting(SystemClock):
    async def sleep(self, seconds: float) -> None:
        return None


@dataclass(frozen=True, slots=True)
class _Evaluating:
    replay: Replay
    real: Expressions

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        with self.replay.at_work():
            return await self.real.evaluate(code, names)


@dataclass(frozen=True, slots=True)
class _Running:
    replay: Replay
    real: CodeRunner

    async def run(
        self, code: str, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> tuple[dict[str, Any], str]:
        with self.replay.at_work():
            return await self.real.run(code, inputs, outputs)


@dataclass(frozen=True, slots=True)
class _Planning:
    replay: Replay
    real: Agents

    async def plan(self, reference: str) -> Plan:
        with self.replay.at_work():
            return await self.real.plan(reference)
