"""The step journal of one run: what each node did, and what the process before ours has recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from app.agent.core.interfaces import StepKey, StepRecord
from app.services.runs.run_log import RunLog


@dataclass(frozen=True, slots=True)
class RunJournal:
    """Implements `Journal` on the run's part of the group commit.

    `known`: earlier entries. Without `awaited` nothing waits for the database before the run's end: the
    durability `exit`.
    """

    run: RunLog
    known: Mapping[StepKey, StepRecord] = field(default_factory=dict)
    awaited: bool = True

    def recall(self, node_path: str, visit: int, call: int) -> StepRecord | None:
        return self.known.get((node_path, visit, call))

    async def ready(self) -> None:
        if self.awaited:
            await self.run.settled()

    async def began(self, step: StepRecord) -> None:
        self.run.record(step)
        await self.ready()

    async def finished(self, step: StepRecord, event: Any = None) -> None:
        self.run.record(step, event)
