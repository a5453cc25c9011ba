"""Runs code of strangers: statements of restricted Python, in jailed worker processes (`workers`).

What the code leaves in its variables is written as JSON by the worker itself, within its limits, so that
nothing but one text of bounded size comes back.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from app.core.errors import Invalid
from app.core.sandbox.jail import Sandbox
from app.core.sandbox.json_values import JsonValues
from app.core.sandbox.workers import Wording, WorkerLimits, Workers


@dataclass(frozen=True, slots=True)
class CodeLimits(WorkerLimits):
    """What one run may cost; `output_bytes` bounds its values as JSON, `log_bytes` what it prints."""

    timeout_s: float = 5
    grace_s: float = 1
    memory_bytes: int = 64 * 2**20
    recursion: int = 200
    output_bytes: int = 2**20
    log_bytes: int = 64 * 2**10


class CodeFailed(Invalid):
    """The code raised, or left what JSON cannot carry."""

    code, title = "code_failed", "Code failed"


class CodeTooCostly(CodeFailed):
    """The code took more time, memory, depth or room than it may."""

    code, title = "code_limit", "Code beyond its limits"


_WORDING = Wording("code", CodeFailed, CodeTooCostly, "ORRERY_CODE")


@dataclass(frozen=True, slots=True)
class CodePool:
    """Runs code in worker processes, which start when the first code needs one."""

    workers: Workers
    limits: CodeLimits

    def of(self, org_id: UUID) -> OrganizationCode:
        """For code of this organization."""
        return OrganizationCode(self, self.workers.place(org_id))

    async def run(
        self, code: str, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> tuple[dict[str, Any], str]:
        """Runs `code` with `inputs`, JSON values, in variables: its variables `outputs`, and what it printed.

        Raises `CodeFailed`, `CodeTooCostly`, and `Unavailable` where all workers stay busy.
        """
        text, printed = await self.workers.run(
            code, inputs, log_bytes=self.limits.log_bytes, ending=_ending(outputs)
        )
        if not isinstance(text, str) or len(text) > self.limits.output_bytes:
            raise CodeTooCostly(f"the outputs come to more than {self.limits.output_bytes} bytes")
        return JsonValues(CodeFailed, CodeTooCostly).of(_parsed(text)), printed


@dataclass(frozen=True, slots=True)
class OrganizationCode:
    """The runner of one organization, which has its share of the workers."""

    pool: CodePool
    place: asyncio.Semaphore

    async def run(
        self, code: str, inputs: Mapping[str, Any], outputs: Sequence[str]
    ) -> tuple[dict[str, Any], str]:
        """See `CodePool.run`."""
        async with self.pool.workers.in_turn(self.place):
            return await self.pool.run(code, inputs, outputs)


@asynccontextmanager
async def open_code(limits: CodeLimits, sandbox: Sandbox = Sandbox.AUTO) -> AsyncIterator[CodePool]:
    """Runs code until the context ends, which ends the workers."""
    async with AsyncExitStack() as stack:
        yield CodePool(Workers(limits, _WORDING, stack, sandbox), limits)


def _ending(outputs: Sequence[str]) -> str:
    """What follows the code: its outputs as one JSON text in ASCII, so that characters are bytes."""
    values = ", ".join(f"{name!r}: {name}" for name in outputs)
    return f"\nfrom json import dumps as _written\n_written({{{values}}}, allow_nan=False)"


def _parsed(text: str) -> Any:
    """Whatever the code did to the writer: only what is sound comes through."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise CodeFailed("the outputs are not JSON") from None
