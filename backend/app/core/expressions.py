"""Evaluates expressions of strangers: restricted Python, in jailed worker processes (`sandbox.workers`)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.core.errors import Invalid
from app.core.sandbox.jail import Sandbox
from app.core.sandbox.json_values import JsonValues
from app.core.sandbox.workers import Wording, WorkerLimits, Workers


class ExpressionLimits(WorkerLimits):
    """What one evaluation may cost."""

    __slots__ = ()


class ExpressionFailed(Invalid):
    """The expression raised, or gave what JSON cannot carry."""

    code, title = "expression_failed", "Expression failed"


class ExpressionTooCostly(ExpressionFailed):
    """The expression took more time, memory or depth than it may."""

    code, title = "expression_limit", "Expression beyond its limits"


_WORDING = Wording("expression", ExpressionFailed, ExpressionTooCostly, "ORRERY_EXPRESSION")


@dataclass(frozen=True, slots=True)
class ExpressionPool:
    """Evaluates in worker processes, which start when the first expression needs one."""

    workers: Workers

    def of(self, org_id: UUID) -> OrganizationExpressions:
        """For expressions of this organization."""
        return OrganizationExpressions(self, self.workers.place(org_id))

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        """The value of `code`, one Python expression, with `names` bound to JSON values; as a JSON value.

        Raises `ExpressionFailed`, `ExpressionTooCostly`, and `Unavailable` where all workers stay busy.
        """
        value, _ = await self.workers.run(code, names)
        return JsonValues(ExpressionFailed, ExpressionTooCostly).of(value)


@dataclass(frozen=True, slots=True)
class OrganizationExpressions:
    """The evaluator of one organization, which has its share of the workers."""

    pool: ExpressionPool
    place: asyncio.Semaphore

    async def evaluate(self, code: str, names: Mapping[str, Any]) -> Any:
        """See `ExpressionPool.evaluate`."""
        async with self.pool.workers.in_turn(self.place):
            return await self.pool.evaluate(code, names)


@asynccontextmanager
async def open_expressions(
    limits: WorkerLimits, sandbox: Sandbox = Sandbox.AUTO
) -> AsyncIterator[ExpressionPool]:
    """Evaluates until the context ends, which ends the workers."""
    async with AsyncExitStack() as stack:
        yield ExpressionPool(Workers(limits, _WORDING, stack, sandbox))
