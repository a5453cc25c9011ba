"""What a run is given from outside, and what it gives back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.agent.core.interfaces import (
    CachedStep,
    Clock,
    EventSink,
    Expressions,
    Http,
    HttpFailed,
    HttpReply,
    HttpRequest,
    Journal,
    Models,
    NodeCache,
    Retriever,
    Usage,
)
from app.core.errors import AppError, Invalid


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
    cache: NodeCache = field(default_factory=NoCache)
    is_outage: Callable[[Exception], bool] = never


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier processes did of a run that goes on, as its event log and its journal have it.

    `continued`: how often it was taken up again. `told`: the nodes whose end was told. `shown`: whole
    assistant messages. `half_told`: messages without an end, as (node path, message id).
    """

    continued: int = 0
    begun: bool = False
    told: frozenset[str] = frozenset()
    shown: tuple[str, ...] = ()
    half_told: tuple[tuple[str, str], ...] = ()
    usage: Mapping[str, Usage] = field(default_factory=dict)


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
    return Usage(
        sum(used.input_tokens for used in usage.values()),
        sum(used.output_tokens for used in usage.values()),
    )
