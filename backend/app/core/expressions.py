"""Evaluates expressions of strangers: restricted Python in Monty (https://github.com/pydantic/monty).

Monty runs in worker processes of its own, which have no clock to spoil, no files and no network. Each
evaluation gets a session that nobody used before. Monty itself bounds time, memory and recursion; what its
own checks do not reach (one multiplication of huge integers) ends with the worker: `grace_s` after the time
limit the worker is killed, and another one takes its place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID
from weakref import WeakValueDictionary

from app.core.errors import AppError, Invalid, Unavailable

if TYPE_CHECKING:
    from pydantic_monty import AsyncMonty

_DEEPEST = 32
_MOST_TEXT = 4 * 2**20
_LONGEST_MESSAGE = 300


@dataclass(frozen=True, slots=True)
class ExpressionLimits:
    """What one evaluation may cost. Beyond `processes` at once they wait, for `wait_s` at most.

    One organization gets all processes but one, so that its costly expressions leave some to the others.
    """

    timeout_s: float = 0.25
    grace_s: float = 0.25
    memory_bytes: int = 32 * 2**20
    recursion: int = 100
    processes: int = 2
    wait_s: float = 5


class ExpressionFailed(Invalid):
    """The expression raised, or gave what JSON cannot carry."""

    code, title = "expression_failed", "Expression failed"


class ExpressionTooCostly(ExpressionFailed):
    """The expression took more time, memory or depth than it may."""

    code, title = "expression_limit", "Expression beyond its limits"


@dataclass(slots=True)
class ExpressionPool:
    """Evaluates in worker processes, which start when the first expression needs one."""

    limits: ExpressionLimits
    stack: AsyncExitStack
    _pool: AsyncMonty | None = None
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _places: WeakValueDictionary[UUID, asyncio.Semaphore] = field(default_factory=WeakValueDictionary)

    def of(self, org_id: UUID) -> OrganizationExpressions:
        """For expressions of this organization."""
        place = self._places.get(org_id) or asyncio.Semaphore(max(1, self.limits.processes - 1))
        self._places[org_id] = place
        return OrganizationExpressions(self, place)

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        """The value of `code`, one Python expression, with `names` bound to JSON values; as a JSON value.

        Raises `ExpressionFailed`, `ExpressionTooCostly`, and `Unavailable` where all workers stay busy.
        """
        from pydantic_monty import CollectString, MontyError  # noqa: PLC0415  (10 MB, for those who need it)

        try:
            pool = await self._started()
            async with pool.checkout(limits=_session_limits(self.limits)) as session:
                value = await session.feed_run(code, inputs=dict(names), print_callback=CollectString(1))
        except MontyError as error:
            raise self._failure(error) from None
        except TimeoutError:
            raise busy(self.limits) from None
        except OSError as error:
            raise Unavailable(f"No worker for expressions can be started: {error}.") from error
        return _JsonValue().of(value, 0)

    async def _started(self) -> AsyncMonty:
        from pydantic_monty import AsyncMonty  # noqa: PLC0415

        async with self._starting:
            if self._pool is None:
                self._pool = await self.stack.enter_async_context(
                    AsyncMonty(
                        min_processes=0,
                        max_processes=self.limits.processes,
                        checkout_timeout=self.limits.wait_s,
                        request_timeout=self.limits.timeout_s + self.limits.grace_s,
                        feed_duration_limit_grace=self.limits.grace_s,
                    )
                )
            return self._pool

    def _failure(self, error: Exception) -> AppError:
        from pydantic_monty import MontyCrashedError, MontyError  # noqa: PLC0415

        inner = error.exception() if isinstance(error, MontyError) else error
        if isinstance(error, MontyCrashedError) or isinstance(inner, TimeoutError):
            return ExpressionTooCostly(f"the expression takes longer than {self.limits.timeout_s:g} s")
        if isinstance(inner, MemoryError):
            return ExpressionTooCostly(f"the expression needs more than {self.limits.memory_bytes} bytes")
        if isinstance(inner, RecursionError):
            return ExpressionTooCostly(f"the expression recurses deeper than {self.limits.recursion} calls")
        message = str(error)
        return ExpressionFailed(
            message if len(message) <= _LONGEST_MESSAGE else f"{message[:_LONGEST_MESSAGE]}…"
        )


@dataclass(frozen=True, slots=True)
class OrganizationExpressions:
    """The evaluator of one organization, which has its share of the workers."""

    pool: ExpressionPool
    place: asyncio.Semaphore

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        """See `ExpressionPool.evaluate`."""
        try:
            async with asyncio.timeout(self.pool.limits.wait_s):
                await self.place.acquire()
        except TimeoutError:
            raise busy(self.pool.limits) from None
        try:
            return await self.pool.evaluate(code, names)
        finally:
            self.place.release()


def busy(limits: ExpressionLimits) -> Unavailable:
    return Unavailable(
        f"All of the {limits.processes} workers for expressions that may be used are busy "
        "(ORRERY_EXPRESSION_PROCESSES); try again."
    )


@asynccontextmanager
async def open_expressions(limits: ExpressionLimits) -> AsyncIterator[ExpressionPool]:
    """Evaluates until the context ends, which ends the workers."""
    async with AsyncExitStack() as stack:
        yield ExpressionPool(limits, stack)


def _session_limits(limits: ExpressionLimits) -> Any:
    return {
        "max_feed_duration_secs": limits.timeout_s,
        "max_memory": limits.memory_bytes,
        "max_recursion_depth": limits.recursion,
        "max_suspensions": 1,
        "max_total_sleep_secs": 0.0,
    }


@dataclass(slots=True)
class _JsonValue:
    """What came back as a JSON value: tuples are lists, the rest has no place in JSON."""

    text: int = 0

    def of(self, value: Any, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ExpressionTooCostly(f"the value is nested deeper than {_DEEPEST} levels")
        match value:
            case None | bool():
                return value
            case str():
                return self._counted(value)
            case int() | float() if _fits(value):
                return value
            case list() | tuple():
                return [self.of(item, depth + 1) for item in value]
            case dict() if all(isinstance(name, str) for name in value):
                return {self._counted(name): self.of(item, depth + 1) for name, item in value.items()}
        raise ExpressionFailed(f"the value holds what is not JSON: {type(value).__name__}")

    def _counted(self, text: str) -> str:
        self.text += len(text)
        if self.text > _MOST_TEXT:
            raise ExpressionTooCostly(f"the value holds more than {_MOST_TEXT} characters")
        return text


def _fits(number: float) -> bool:
    """Whether JSON carries it exactly (RFC 7493)."""
    return abs(number) < 2**53 if isinstance(number, int) else math.isfinite(number)
