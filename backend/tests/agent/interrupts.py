"""Answers and times for agents in tests: what a run waits for, in memory."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any
from uuid import UUID

from app.agent.core.interfaces import Clock
from app.agent.core.interrupts import Answered, Interrupt


class Inbox:
    """Implements `Interrupts`; tests answer by `answer`. What is due is so by `clock`."""

    def __init__(self, clock: Clock, log: Any = None) -> None:
        self.clock = clock
        self.log = log
        self.all: dict[UUID, Interrupt] = {}
        self.withdrawn: list[str] = []
        self.looks: list[int] = []
        self.taken: list[str] = []
        self.hear: Callable[[], None] = lambda: None

    def recall(self, interrupt_id: UUID) -> Interrupt | None:
        known = self.all.get(interrupt_id)
        due = known is not None and known.due_ms is not None and known.due_ms <= self.clock.now_ms()
        return replace(known, due=due) if known else None

    def listen(self, hear: Callable[[], None]) -> None:
        self.hear = hear

    async def over(self, ids: Collection[UUID]) -> list[Interrupt]:
        self.looks.append(len(ids))
        return [one for one in map(self.recall, ids) if one and (one.answered or one.due)]

    def take(self, interrupt: Interrupt) -> None:
        self.taken.append(interrupt.node_path)

    async def open(self, interrupt: Interrupt, event: Any = None) -> None:
        assert interrupt.id not in self.all
        self.all[interrupt.id] = interrupt
        if event is not None and self.log is not None:
            await self.log.emit(event, node_path=interrupt.node_path)

    async def expire(self, interrupt_id: UUID) -> Answered:
        return self._close(interrupt_id, Answered(expired=True, answered_at_ms=0))

    async def withdraw(self, under: str) -> None:
        gone = [one.id for one in self.all.values() if f"{one.node_path}/".startswith(f"{under}/")]
        self.withdrawn += [self.all.pop(one).node_path for one in gone if self.all[one].answered is None]

    @property
    def open_ones(self) -> list[Interrupt]:
        return [one for one in self.all.values() if one.answered is None]

    def answer(self, node_path: str, choice: str | None = None, **data: Any) -> None:
        """Answers what the node at the path asks."""
        (asked,) = [one for one in self.open_ones if one.node_path == node_path]
        self.answer_one(asked.id, choice, **data)

    def answer_one(self, interrupt_id: UUID, choice: str | None = None, **data: Any) -> None:
        self._close(interrupt_id, Answered(False, 1, choice, data, "ann@example.org"))

    def _close(self, interrupt_id: UUID, answered: Answered) -> Answered:
        self.all[interrupt_id] = replace(self.all[interrupt_id], answered=answered)
        self.hear()
        return answered
