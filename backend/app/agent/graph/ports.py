"""What a run is given from outside, and what it gives back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from uuid import UUID

from app.agent.core.http import Http, HttpFailed, HttpReply, HttpRequest
from app.agent.core.interfaces import (
    Clock,
    EventSink,
    Journal,
    Models,
    Retriever,
    Tool,
    Tools,
    Usage,
)
from app.agent.core.interrupts import Answered, Interrupt, Interrupts
from app.agent.core.limits import EngineLimits
from app.agent.core.node_cache import CachedStep, NodeCache
from app.agent.core.sandbox import CodeRunner, Expressions
from app.agent.graph.plan import Plan
from app.core.errors import AppError, Invalid, NotFound


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def elapsed_s(self) -> float:
        return time.perf_counter()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class NoHttp:
    """Where no way out was opened."""

    async def send(self, request: HttpRequest) -> HttpReply:
        raise HttpFailed("this process makes no outgoing calls", code="egress_denied")


class NoExpressions:
    """Where no evaluator was opened: only comparisons are decided."""

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        raise Invalid("this process evaluates no expressions but comparisons", code="expression_failed")


class NoInterrupts:
    """Where nobody is there to answer, and no time is kept."""

    def recall(self, interrupt_id: UUID) -> Interrupt | None:
        return None

    async def open(self, interrupt: Interrupt, event: Any = None) -> None:
        raise Invalid("this process can ask nobody and keeps no times", code="no_interrupts")

    def listen(self, hear: Callable[[], None]) -> None:
        return None

    async def over(self, ids: Collection[UUID]) -> Sequence[Interrupt]:
        return ()

    def take(self, interrupt: Interrupt) -> None:
        return None

    async def expire(self, interrupt_id: UUID) -> Answered:
        return Answered(expired=True, answered_at_ms=0)

    async def withdraw(self, under: str) -> None:
        return None


class NoAgents:
    """Where no other agent can be reached."""

    async def plan(self, reference: str) -> Plan:
        raise Invalid("this process knows no other agents", code="no_agents")


class Agents(Protocol):
    """Published agents by what the version's bindings resolved to: the id of one version."""

    async def plan(self, reference: str) -> Plan: ...


class NoCode:
    """Where no sandbox was opened."""

    async def run(
        self, code: str, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> tuple[dict[str, Any], str]:
        raise Invalid("this process runs no code", code="code_failed")


class NoTools:
    """Where no registry was opened."""

    async def tools(self, reference: str) -> Sequence[Tool]:
        raise NotFound(f"There is no tool {reference!r}: this process has none.")


class NoCache:
    """Remembers nothing."""

    async def find(self, key: str) -> CachedStep | None:
        return None

    async def keep(self, key: str, step: CachedStep, *, ttl_s: float) -> None:
        return None


def never(_: Exception) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Ports:
    """Bound to the run's tenant and version by whoever builds them.

    `is_outage` knows the errors of ports which mean that the platform's own database is away: they are no
    failure of the node that met them, and the run stops as `Undeliverable`.
    """

    models: Models
    retriever: Retriever
    sink: EventSink
    journal: Journal
    clock: Clock = field(default_factory=SystemClock)
    http: Http = field(default_factory=NoHttp)
    expressions: Expressions = field(default_factory=NoExpressions)
    code: CodeRunner = field(default_factory=NoCode)
    cache: NodeCache = field(default_factory=NoCache)
    interrupts: Interrupts = field(default_factory=NoInterrupts)
    agents: Agents = field(default_factory=NoAgents)
    limits: EngineLimits = field(default_factory=EngineLimits)
    tools: Tools = field(default_factory=NoTools)
    is_outage: Callable[[Exception], bool] = never


@dataclass(frozen=True, slots=True)
class HalfTold:
    """A message without an end: `text`, if some of it was shown; `calls` are the open tool calls of it."""

    node_path: str
    message_id: str
    text: bool = True
    calls: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier processes did of a run that goes on, as its event log and its journal have it.

    `continued`: how often it was taken up again; `suspended`: the last time, because a person had answered or
    a time had come. `told`: the paths of nodes whose end was told; `parked`: of those that had begun and
    waited when it was suspended. `shown`: whole assistant messages. `half_told`: messages without an end.
    `resumes`: the ids of the runs that it resumes, the nearest first: what people have answered there, they
    are not asked again.
    """

    continued: int = 0
    suspended: bool = False
    begun: bool = False
    told: frozenset[str] = frozenset()
    parked: frozenset[str] = frozenset()
    shown: tuple[str, ...] = ()
    half_told: tuple[HalfTold, ...] = ()
    usage: Mapping[str, Usage] = field(default_factory=dict)
    resumes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunResult:
    """The output of the end that was reached. `usage` is the sum over `usage_by_model`."""

    output: Mapping[str, Any]
    usage: Usage
    usage_by_model: Mapping[str, Usage]


class InvalidInput(Invalid):
    """The input does not fit the graph's `inputs`; pointers are into the input. Nothing has started."""

    code = "invalid_input"


class RunFailed(AppError):
    """The run ended with RUN_ERROR, which has been emitted. `node_id` failed, if it was a node."""

    code, title = "run_failed", "Run failed"

    def __init__(
        self, detail: str, *, code: str, node_id: str | None, usage_by_model: Mapping[str, Usage]
    ) -> None:
        super().__init__(detail, code=code)
        self.node_id = node_id
        self.usage_by_model = usage_by_model

    @property
    def usage(self) -> Usage:
        return total(self.usage_by_model)


class Undeliverable(AppError):
    """The sink or the journal raised, or the platform's database is away: the cause says which.

    The run stops at once and emits nothing more.
    """

    code, title = "undeliverable", "Events or steps cannot be written"


def total(usage: Mapping[str, Usage]) -> Usage:
    return sum(usage.values(), Usage())


def usage_told(by_model: Mapping[str, Usage]) -> dict[str, Any]:
    """As the journal and the run's row have it: `input_tokens`, `output_tokens`, `cost` as far as it is
    known, then with the models that are `unpriced`, if any; and the same `by_model`."""
    told = total(by_model).told()
    unpriced = [model for model, used in by_model.items() if used != Usage() and not used.cost]
    if unpriced and "cost" in told:
        told["unpriced"] = unpriced
    return {**told, "by_model": {model: used.told() for model, used in by_model.items()}}


def usage_read(told: Mapping[str, Any] | None) -> dict[str, Usage]:
    """By model, what `usage_told` was given."""
    by_model = (told or {}).get("by_model") or {}
    return {model: Usage.read(used) for model, used in by_model.items()}
