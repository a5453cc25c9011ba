"""Work side by side: what waits for a person or a time goes on as soon as it can, beside the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from app.agent.core.interrupts import Suspended
from app.agent.core.scope import Ends, Work
from app.core.tasks import end

T = TypeVar("T")
Key = TypeVar("Key")

Over = Callable[[Suspended], Coroutine[Any, Any, frozenset[UUID]]]
"""Returns once some of what is waited for is over: which."""


@dataclass(slots=True)
class Crew(Generic[Key, T]):
    """Tasks that are told of as they end, and again when they waited (`Suspended`) and can go on: then they
    are to be begun anew. As long as some work, the others are looked after."""

    over: Over
    working: dict[asyncio.Task[T], tuple[int, Key]] = field(default_factory=dict)
    waiting: list[tuple[Key, Suspended]] = field(default_factory=list)
    begun: int = 0
    ended: list[asyncio.Task[T]] = field(default_factory=list)
    lookout: asyncio.Task[frozenset[UUID]] | None = None
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def idle(self) -> bool:
        return not self.working and not self.waiting

    def begin(self, key: Key, work: Coroutine[Any, Any, T]) -> None:
        task = asyncio.create_task(work)
        self.working[task] = (self.begun, key)
        self.begun += 1
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        self.ended.append(task)
        self.moved.set()

    async def news(self) -> tuple[list[tuple[Key, asyncio.Task[T]]], list[Key]]:
        """Waits until some have ended, came to wait, or can go on. Answers the first, as they began, and the
        last."""
        if self.lookout is None and self.waiting:
            self.lookout = asyncio.create_task(self.over(_all(self.waiting)))
            self.lookout.add_done_callback(lambda _: self.moved.set())
        await self.moved.wait()
        self.moved.clear()
        able = self._able()
        return await self._taken(), able

    def _able(self) -> list[Key]:
        if self.lookout is None or not self.lookout.done():
            return []
        over, self.lookout = self.lookout.result(), None
        able = [key for key, one in self.waiting if one.ids & over]
        self.waiting = [(key, one) for key, one in self.waiting if not one.ids & over]
        return able

    async def _taken(self) -> list[tuple[Key, asyncio.Task[T]]]:
        """Those that have ended, but for those that wait from now on."""
        ended, self.ended = self.ended, []
        found = sorted((*self.working.pop(task), task) for task in ended) if ended else []
        over: list[tuple[Key, asyncio.Task[T]]] = []
        for _, key, task in found:
            error = task.exception()
            if isinstance(error, Suspended):
                await self._look_no_more()
                self.waiting.append((key, error))
            else:
                over.append((key, task))
        return over

    async def _look_no_more(self) -> None:
        """Until it is known again what is waited for."""
        if self.lookout is not None:
            await end(self.lookout)
            self.lookout = None

    async def dismiss(self) -> None:
        """Cancels all that still work."""
        await self._look_no_more()
        for task in self.working:
            task.cancel()
        await asyncio.gather(*self.working, return_exceptions=True)

    def suspended(self) -> Suspended:
        """Until the first of those that wait can go on."""
        return _all(self.waiting)


async def side_by_side(works: Sequence[Work], *, places: int, over: Over, ends: Ends) -> list[Any]:
    """See `Scope.side_by_side`."""
    limit = asyncio.Semaphore(places)

    async def one(work: Work) -> Any:
        async with limit:
            return await work()

    crew = Crew[int, Any](over)
    found: list[Any] = [None] * len(works)
    able = list(range(len(works)))
    try:
        while able or crew.working:
            for index in able:
                crew.begin(index, one(works[index]))
            ended, able = await crew.news()
            for index, task in ended:
                error = task.exception()
                if error is not None and (raised := ends(index, error)) is not None:
                    raise raised
                found[index] = task.result() if error is None else error
    finally:
        await crew.dismiss()
    if crew.waiting:
        raise crew.suspended()
    return found


def _all(waiting: Iterable[tuple[Any, Suspended]]) -> Suspended:
    return Suspended.all([one for _, one in waiting])
