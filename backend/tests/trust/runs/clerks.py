"""People who answer what runs ask, several the same question at the same moment, at whatever process."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from tests.trust.runs.orders import BROKEN
from tests.trust.runs.shipments import Given
from tests.trust.runs.streams import opened
from tests.trust.serving import Platform

AT_ONCE = 3
_LOOK_EVERY_S = 0.15
_LONGEST_THOUGHT_S = 1.0


@dataclass(slots=True)
class Office:
    """Answers every question of an agent's runs until it is closed.

    `taken`: what the API took, by question. `unheard`: questions of which somebody does not know whether
    their answer was taken: a process died over it. Each of `AT_ONCE` gives another answer, once.
    """

    agent: str
    processes: Sequence[Platform]
    lots: random.Random
    taken: defaultdict[str, list[Given]] = field(default_factory=lambda: defaultdict(list))
    unheard: set[str] = field(default_factory=set)
    closed: bool = False

    async def work(self) -> None:
        busy: dict[str, asyncio.Task[None]] = {}
        while not self.closed:
            for question in await self._inbox():
                task = busy.get(question["id"])
                if task is None or task.done():
                    busy[question["id"]] = asyncio.create_task(self._decide(question))
            await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.gather(*busy.values())

    async def _inbox(self) -> list[dict[str, Any]]:
        with suppress(*BROKEN):
            status, found = await self._call(f"/interrupts?agent={self.agent}&limit=100")
            return list(found["items"]) if status == 200 else []
        return []

    async def _decide(self, question: dict[str, Any]) -> None:
        await asyncio.sleep(self.lots.uniform(0, _LONGEST_THOUGHT_S))
        await asyncio.gather(*(self._answer(question, number) for number in range(AT_ONCE)))

    async def _answer(self, question: dict[str, Any], number: int) -> None:
        choice = self.lots.choice(question["choices"]) if question["choices"] else None
        given = Given(choice, self.lots.randrange(1_000) * AT_ONCE + number)
        body = {"data": {"amount": given.amount}} | ({"choice": choice} if choice else {})
        try:
            status, said = await self._call(f"/runs/{question['run_id']}/interrupts/{question['id']}", body)
        except BROKEN:
            self.unheard.add(question["id"])
            return
        assert status in (200, 409, 503), said
        if status == 200:
            self.taken[question["id"]].append(given)

    async def _call(self, path: str, body: Any = None) -> tuple[int, dict[str, Any]]:
        async with opened(self.lots.choice(self.processes).url, path, body=body) as answer:
            return answer.status, json.loads(await answer.text())
