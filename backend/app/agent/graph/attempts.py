"""The one wrapper around every node: timeout, retry, errors, journal, events."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass, field
from random import SystemRandom
from typing import Any

from app.agent.core.base import ERROR, SUCCESS, Effect
from app.agent.core.events import Failure, MessageDiscarded, NodeFinished, NodeStarted, Retry, Tokens
from app.agent.core.interfaces import FinishReason, ModelError, StepRecord, Usage
from app.agent.core.state import Write
from app.agent.graph.caching import remembered
from app.agent.graph.plan import PlannedNode
from app.agent.graph.policies import RetryPolicy
from app.agent.graph.ports import Undeliverable, total
from app.agent.graph.run_context import RunContext, plus
from app.agent.graph.scope import NodeScope, Values
from app.core.errors import AppError, RateLimited, Unavailable

_log = logging.getLogger(__name__)
_random = SystemRandom()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a node ended: the way out, what it hands on, what it wrote to state."""

    handle: str
    outputs: dict[str, Any]
    writes: tuple[Write, ...] = ()
    cached: bool = False


class NodeFailed(AppError):
    """A failure that nothing in the graph handles; the run ends by it."""

    def __init__(self, node_id: str, failure: Failure) -> None:
        super().__init__(failure.message, code=failure.code)
        self.node_id = node_id
        self.failure = failure


@dataclass(slots=True)
class _Effort:
    """One node's execution over all its attempts."""

    run: RunContext
    node: PlannedNode
    started_at_ms: int
    started_s: float
    attempts: int = 0
    used: dict[str, Usage] = field(default_factory=dict)
    finish_reason: FinishReason | None = None

    @property
    def quiet(self) -> bool:
        """Whether the log has this node's end already: a pure node whose past is worked out anew."""
        return self.node.id in self.run.past.told

    @property
    def duration_ms(self) -> float:
        return round((self.run.ports.clock.elapsed_s() - self.started_s) * 1000, 3)

    @property
    def tokens(self) -> Tokens | None:
        used = total(self.used)
        if used == Usage():
            return None
        return Tokens(input_tokens=used.input_tokens, output_tokens=used.output_tokens)

    def count(self, attempt: NodeScope) -> None:
        """Takes over what an attempt used, and how its model's answer ended."""
        for model, usage in attempt.used.items():
            self.used[model] = plus(self.used.get(model, Usage()), usage)
        self.finish_reason = attempt.finish_reason


async def execute(node: PlannedNode, values: Values, run: RunContext) -> Outcome:
    """Runs one node to its end. Raises `NodeFailed` where a failure fails the run, `Undeliverable`.

    Cancelling aborts the attempt where it waits and leaves no event or record behind. What an earlier
    process of the run brought to its end is not done again.
    """
    if (done := run.recall(node.id)) and done.ended:
        return _replayed(node, done)
    clock = run.ports.clock
    effort = _Effort(run, node, clock.now_ms(), clock.elapsed_s())
    if not effort.quiet:
        await run.emit(NodeStarted(node_id=node.id, node_type=node.type.name).event(), node.id)
    await _clear_the_way(effort)
    while True:
        effort.attempts += 1
        scope = NodeScope(run, node, values, run.message(node.id, effort.attempts))
        try:
            outcome = await _attempt(scope)
        except Undeliverable:
            raise
        except Exception as error:
            run.rule_out_outage(error)
            effort.count(scope)
            failure, retry_after_s = _failure(error, node)
            await _discard(scope, failure)
            if not await _again(effort, scope, failure, retry_after_s=retry_after_s):
                return await _failed(effort, failure)
        else:
            effort.count(scope)
            await _finish(effort, outcome, "succeeded")
            return outcome


def _replayed(node: PlannedNode, done: StepRecord) -> Outcome:
    """What came of the node then. Raises `NodeFailed` where that ended the run."""
    if done.output is None:
        error = done.error or {"code": "internal_error", "message": f"node {node.id!r} failed"}
        raise NodeFailed(node.id, Failure.model_validate(error))
    writes = tuple((field, value) for field, value in done.writes)
    return Outcome(done.handle or SUCCESS, dict(done.output), writes)


async def _clear_the_way(effort: _Effort) -> None:
    """Nothing that can be noticed outside begins before all that led to it is stored."""
    match effort.node.effect:
        case Effect.WRITE:
            await effort.run.begin(_record(effort, "started"))
        case Effect.READ:
            await effort.run.ready()


async def skip(node: PlannedNode, run: RunContext) -> None:
    """Records that no way led to the node."""
    if _journalled(node) and run.recall(node.id) is None:
        await run.record(
            StepRecord(
                node_path=node.id,
                node_type=node.type.name,
                visit=1,
                status="skipped",
                started_at_ms=run.ports.clock.now_ms(),
                duration_ms=0,
                attempts=0,
            )
        )


async def _attempt(scope: NodeScope) -> Outcome:
    node = scope.node
    async with asyncio.timeout(node.timeout_s):
        outputs = await remembered(scope)
    await scope.message.complete()
    return Outcome(scope.handle, outputs, tuple(scope.writes), scope.cached)


async def _discard(scope: NodeScope, failure: Failure) -> None:
    message = scope.message
    if message.visible:
        await message.close()
        event = MessageDiscarded(node_id=scope.node.id, message_id=message.id, reason=failure).event()
        await scope.run.emit(event, scope.node.id)


async def _again(effort: _Effort, scope: NodeScope, failure: Failure, *, retry_after_s: float | None) -> bool:
    """Whether to try again; the delay has passed by then."""
    policy = effort.node.retry
    if policy is None or failure.code not in policy.on or effort.attempts >= policy.max_attempts:
        return False
    if scope.message.visible and not policy.restart_stream:
        return False
    delay_s = max(_backoff_s(policy, effort.attempts), retry_after_s or 0)
    event = Retry(
        node_id=effort.node.id, attempt=effort.attempts + 1, delay_ms=round(delay_s * 1000, 3), error=failure
    ).event()
    await effort.run.emit(event, effort.node.id)
    await effort.run.ports.clock.sleep(delay_s)
    return True


def _backoff_s(policy: RetryPolicy, attempt: int) -> float:
    factor = 2 ** (attempt - 1) if policy.backoff == "exponential" else 1
    delay_s = min(policy.initial_s * factor, policy.max_s)
    return _random.uniform(delay_s / 2, delay_s) if policy.jitter else delay_s


async def _failed(effort: _Effort, failure: Failure) -> Outcome:
    node = effort.node
    error = {ERROR: failure.model_dump()}
    outcome = None
    if node.default is not None:
        outcome = Outcome(node.config.fallback(), {**node.default.default, **error})
    elif node.catches:
        outcome = Outcome(ERROR, error)
    await _finish(effort, outcome, "failed", failure)
    if outcome is None:
        raise NodeFailed(node.id, failure)
    return outcome


async def _finish(
    effort: _Effort, outcome: Outcome | None, status: str, failure: Failure | None = None
) -> None:
    node, run, tokens = effort.node, effort.run, effort.tokens
    handle = outcome.handle if outcome and outcome.handle in node.handles else None
    text = outcome.outputs.get(node.type.streams) if outcome and node.type.streams else None
    finished = NodeFinished.model_validate(
        {
            "node_id": node.id,
            "node_type": node.type.name,
            "status": status,
            "handle": handle,
            "attempts": effort.attempts,
            "cached": True if outcome and outcome.cached else None,
            "duration_ms": effort.duration_ms,
            "usage": tokens,
            "error": failure,
            "finish_reason": effort.finish_reason,
            "text": None if node.live else text,
        }
    )
    if _journalled(node):
        step = _record(
            effort,
            status,
            duration_ms=finished.duration_ms,
            output=outcome.outputs if outcome else None,
            error=failure.model_dump() if failure else None,
            usage=_usage(effort, tokens),
            handle=handle,
            writes=outcome.writes if outcome else (),
        )
        await run.record(step, finished.event())
    elif not effort.quiet:
        await run.emit(finished.event(), node.id)


def _record(effort: _Effort, status: str, *, duration_ms: float = 0, **came_of_it: Any) -> StepRecord:
    return StepRecord(
        node_path=effort.node.id,
        node_type=effort.node.type.name,
        visit=1,
        status=status,
        started_at_ms=effort.started_at_ms,
        duration_ms=duration_ms,
        attempts=effort.attempts,
        **came_of_it,
    )


def _usage(effort: _Effort, tokens: Tokens | None) -> dict[str, Any] | None:
    """As the journal has it, so that a run which goes on knows what it has used."""
    if tokens is None:
        return None
    by_model = {model: asdict(used) for model, used in effort.used.items()}
    return tokens.model_dump() | {"by_model": by_model}


def _journalled(node: PlannedNode) -> bool:
    return node.effect is not Effect.PURE or node.timed


def _failure(error: Exception, node: PlannedNode) -> tuple[Failure, float | None]:
    """An exception as code and message, and the wait that a provider asked for."""
    match error:
        case ModelError():
            return Failure(code=error.code, message=error.message), error.retry_after_s
        case RateLimited():
            return Failure(code="rate_limit", message=error.detail), error.retry_after_s
        case Unavailable():
            return Failure(code="server_error", message=error.detail), error.retry_after_s
        case AppError():
            return Failure(code=error.code, message=error.detail), error.retry_after_s
        case TimeoutError():
            limit = f" within {node.timeout_s:g} s" if node.timeout_s else " in time"
            return Failure(code="timeout", message=f"node {node.id!r} did not finish{limit}"), None
    _log.error("node %r of type %r raised", node.id, node.type.name, exc_info=error)
    return Failure(code="internal_error", message=f"node {node.id!r} failed unexpectedly"), None
