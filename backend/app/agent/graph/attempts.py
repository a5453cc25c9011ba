"""The one wrapper around every node: timeout, retry, errors, journal, events."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from random import SystemRandom
from typing import Any

from app.agent.core.base import ERROR, SUCCESS, Effect
from app.agent.core.events import Failure, NodeFinished, NodeStarted, Retry, Tokens
from app.agent.core.interfaces import FinishReason, StepRecord, Usage
from app.agent.core.interrupts import Suspended
from app.agent.core.state import Write
from app.agent.graph.caching import citations_of, remembered, tell_again
from app.agent.graph.failures import failure_of
from app.agent.graph.plan import PlannedNode
from app.agent.graph.policies import RetryPolicy
from app.agent.graph.ports import Undeliverable, total, usage_told
from app.agent.graph.replaying import Replay
from app.agent.graph.request_hash import request_hash
from app.agent.graph.run_context import Frame, RunContext
from app.agent.graph.scope import NodeScope, Values
from app.core.errors import AppError

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

    frame: Frame
    node: PlannedNode
    values: Values
    started_at_ms: int
    started_s: float
    waited: bool = False
    attempts: int = 0
    used: dict[str, Usage] = field(default_factory=dict)
    finish_reason: FinishReason | None = None
    request_hash: str = ""

    @property
    def run(self) -> RunContext:
        return self.frame.run

    @property
    def path(self) -> str:
        return self.frame.path_of(self.node.id)

    @property
    def quiet(self) -> bool:
        """Whether the log has this node's end already: a pure node whose past is worked out anew."""
        return self.path in self.run.past.told or (self.path, self.frame.visit) in self.run.told

    def attempt(self) -> NodeScope:
        """The one that begins, with a message of its own."""
        message = self.run.message(self.path, self.attempts, self.frame.visit)
        return NodeScope(
            self.frame, self.node, self.values, message, self.attempts, self.started_at_ms, self.asked
        )

    def asked(self) -> str:
        """What the node is asked, as a hash."""
        self.request_hash = self.request_hash or request_hash(self.frame.plan, self.node, self.values)
        return self.request_hash

    @property
    def duration_ms(self) -> float:
        """Of a node that waited for a person or a time, all the time since it began."""
        clock = self.run.ports.clock
        if self.waited:
            return float(max(0, clock.now_ms() - self.started_at_ms))
        return round((clock.elapsed_s() - self.started_s) * 1000, 3)

    @property
    def tokens(self) -> Tokens | None:
        if not self.used:
            return None
        used = total(self.used)
        return Tokens(input_tokens=used.input_tokens, output_tokens=used.output_tokens)

    def count(self, attempt: NodeScope) -> None:
        """Takes over what an attempt used, and how its model's answer ended."""
        for model, usage in attempt.used.items():
            self.used[model] = self.used.get(model, Usage()) + usage
        self.finish_reason = attempt.finish_reason


async def execute(node: PlannedNode, values: Values, frame: Frame) -> Outcome:
    """Runs one node to its end. Raises `NodeFailed` where a failure fails the run, `Suspended` where it waits
    for a person or a time, `Undeliverable`.

    Cancelling aborts the attempt where it waits and leaves no event or record behind. What an earlier
    process of the run brought to its end is not done again, nor what the run that this one was made of did,
    where it was asked the same.
    """
    if frame.run.replay is not None:
        return await _again(node, values, frame, frame.run.replay)
    known = frame.recall(node.id)
    if known and known.ended and frame.run.is_told(known):
        return _replayed(node, known)
    effort = _effort(node, values, frame)
    if known and known.ended and _counts_here(effort, known):
        return await _taken_over(effort, known)
    await _begin(effort, known)
    return await _tried(effort)


async def _again(node: PlannedNode, values: Values, frame: Frame, replay: Replay) -> Outcome:
    """What the record says, or what comes of it now where that follows from the record."""
    path = frame.path_of(node.id)
    answered = replay.answers(node, path)
    if answered and (known := replay.told_before(path, frame.visit)):
        return _replayed(node, known)
    worked = replay.begin(path, values.found(node.references))
    if answered:
        asked = request_hash(frame.plan, node, values)
        outcome = _replayed(node, await replay.again(path, frame.visit, asked=asked))
        if node.type.streams and node.live and frame.speaks:
            frame.run.shown.append(outcome.outputs.get(node.type.streams, ""))
    else:
        effort = _effort(node, values, frame)
        await _tell_begin(effort)
        outcome = await _tried(effort)
    worked.output = outcome.outputs
    return outcome


def _effort(node: PlannedNode, values: Values, frame: Frame) -> _Effort:
    clock = frame.run.ports.clock
    return _Effort(frame, node, values, clock.now_ms(), clock.elapsed_s())


async def _tried(effort: _Effort) -> Outcome:
    """Attempt after attempt, as many as the node may have."""
    while True:
        effort.attempts += 1
        scope = effort.attempt()
        try:
            outcome = await _attempt(scope)
        except Suspended:
            effort.count(scope)
            await _park(effort)
            raise
        except Undeliverable:
            raise
        except Exception as error:
            effort.run.rule_out_outage(error)
            effort.count(scope)
            failure, retry_after_s = failure_of(error, effort.node)
            await _discard(scope, failure)
            if not await _tries_again(effort, scope, failure, retry_after_s=retry_after_s):
                return await _failed(effort, failure)
        else:
            effort.count(scope)
            await _finish(effort, outcome, "succeeded")
            return outcome


async def _begin(effort: _Effort, known: StepRecord | None) -> None:
    """Tells that the node begins, unless the log has that already, and that nothing is in its way."""
    if known and not known.ended:  # its earlier attempts are over, also where another process made them
        effort.attempts = max(0, known.attempts - 1)
        # Branches that had not ended then may have now: what was asked is what the effect's key was made of.
        effort.request_hash = known.request_hash or ""
    if known and known.status == "waiting":
        effort.started_at_ms, effort.waited = known.started_at_ms, True
    used_before = effort.run.parked.pop(effort.path, None)
    if used_before is not None and known and known.status == "waiting":
        effort.used = used_before
    elif not effort.quiet:
        await _tell_begin(effort)
    await _clear_the_way(effort)


async def _tell_begin(effort: _Effort) -> None:
    node = effort.node
    await effort.run.emit(NodeStarted(node_id=node.id, node_type=node.type.name).event(), effort.path)


def _counts_here(effort: _Effort, done: StepRecord) -> bool:
    """Whether what another run did counts in this one: it is asked the same, and can go the same way."""
    goes_on = done.handle is None or done.handle in effort.node.handles
    return goes_on and done.request_hash == effort.asked()


async def _taken_over(effort: _Effort, done: StepRecord) -> Outcome:
    """What another run did, told as if this one had."""
    outcome = _replayed(effort.node, done)
    if effort.quiet:
        return outcome
    await _tell_begin(effort)
    effort.attempts = max(1, done.attempts)
    scope = effort.attempt()
    await tell_again(scope, outcome.outputs, citations_of(effort.node.type, outcome.outputs))
    await scope.message.complete()
    failure = Failure.model_validate(done.error) if done.error else None
    told = _finished(effort, outcome, done.status, failure, taken_from=done.source_run_id)
    taken = replace(done, visit=effort.frame.visit)
    await effort.run.record(taken, told.event())
    return outcome


def _replayed(node: PlannedNode, done: StepRecord) -> Outcome:
    """What came of the node then. Raises `NodeFailed` where that ended the run."""
    if done.output is None:
        error = done.error or {"code": "internal_error", "message": f"node {node.id!r} failed"}
        raise NodeFailed(node.id, Failure.model_validate(error))
    writes = tuple((field, value) for field, value in done.writes)
    return Outcome(done.handle or SUCCESS, dict(done.output), writes)


async def _park(effort: _Effort) -> None:
    """Records that the node waits for a person or a time, unless it is known."""
    effort.run.parked[effort.path] = effort.used
    known = effort.frame.recall(effort.node.id)
    if known is None or (known.status, known.attempts) != ("waiting", effort.attempts):
        await effort.run.record(_record(effort, "waiting"))


async def _clear_the_way(effort: _Effort) -> None:
    """Nothing that can be noticed outside begins before all that led to it is stored.

    What runs inside of a node sees to that by itself.
    """
    match effort.node.effect:
        case _ if effort.node.holds_graphs:
            pass
        case Effect.WRITE:
            await effort.run.begin(_record(effort, "started"))
        case Effect.READ:
            await effort.run.ready()


async def skip(node: PlannedNode, frame: Frame) -> None:
    """Records that no way led to the node."""
    known = frame.recall(node.id)
    if node.journalled and (known is None or not frame.run.is_told(known)):
        await frame.run.record(
            StepRecord(
                node_path=frame.path_of(node.id),
                node_type=node.type.name,
                visit=frame.visit,
                status="skipped",
                started_at_ms=frame.run.ports.clock.now_ms(),
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
    """What the attempt has shown does not count, and nobody needs to answer what it asked."""
    if scope.node.asks and not scope.node.config.keeps_calls:
        await scope.run.withdraw(scope.path)
    await scope.message.discard(scope.node.id, failure)


async def _tries_again(
    effort: _Effort, scope: NodeScope, failure: Failure, *, retry_after_s: float | None
) -> bool:
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
    if not effort.quiet:
        await effort.run.emit(event, effort.path)
    if effort.node.holds_graphs or effort.node.type.suspends:
        await effort.run.record(replace(_record(effort, "started"), attempts=effort.attempts + 1))
    await effort.run.ports.clock.sleep(delay_s)
    return True


def _backoff_s(policy: RetryPolicy, attempt: int) -> float:
    factor = 2 ** (attempt - 1) if policy.backoff == "exponential" else 1
    delay_s = min(policy.initial_s * factor, policy.max_s)
    return _random.uniform(delay_s / 2, delay_s) if policy.jitter else delay_s


async def _failed(effort: _Effort, failure: Failure) -> Outcome:
    node = effort.node
    if node.asks and node.config.keeps_calls:
        await effort.run.withdraw(effort.path)
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
    node, run = effort.node, effort.run
    finished = _finished(effort, outcome, status, failure)
    if node.journalled:
        step = _record(
            effort,
            status,
            duration_ms=finished.duration_ms,
            output=outcome.outputs if outcome else None,
            error=failure.model_dump() if failure else None,
            usage=usage_told(effort.used) if effort.used else None,
            handle=finished.handle,
            writes=outcome.writes if outcome else (),
        )
        await run.record(step, finished.event())
    elif not effort.quiet:
        await run.emit(finished.event(), effort.path)
        if effort.frame.path:
            run.told.add((effort.path, effort.frame.visit))


def _finished(
    effort: _Effort,
    outcome: Outcome | None,
    status: str,
    failure: Failure | None,
    *,
    taken_from: str | None = None,
) -> NodeFinished:
    """The event that tells how the node ended."""
    node = effort.node
    text = outcome.outputs.get(node.type.streams) if outcome and node.type.streams else None
    return NodeFinished.model_validate(
        {
            "node_id": node.id,
            "node_type": node.type.name,
            "status": status,
            "handle": outcome.handle if outcome and outcome.handle in node.handles else None,
            "attempts": effort.attempts,
            "cached": True if outcome and outcome.cached else None,
            "taken_from": taken_from,
            "duration_ms": effort.duration_ms,
            "usage": effort.tokens,
            "error": failure,
            "finish_reason": effort.finish_reason,
            "text": None if node.live and effort.frame.speaks else text,
        }
    )


def _record(effort: _Effort, status: str, *, duration_ms: float = 0, **came_of_it: Any) -> StepRecord:
    return StepRecord(
        node_path=effort.path,
        node_type=effort.node.type.name,
        visit=effort.frame.visit,
        status=status,
        started_at_ms=effort.started_at_ms,
        duration_ms=duration_ms,
        attempts=effort.attempts,
        request_hash=effort.asked(),
        **came_of_it,
    )
