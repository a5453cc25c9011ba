"""Work side by side: what waits for a person or a time goes on as soon as it can, beside the rest."""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Coroutine, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from uuid import UUID

from app.agent.core.interfaces import Clock
from app.agent.core.interrupts import Interrupt, Interrupts, Suspended
from app.agent.core.scope import Ends, Work
from app.core.tasks import end

_log = logging.getLogger(__name__)
_LOOK_EVERY_S = 1.0
_SOON_S = 0.05

T = TypeVar("T")
Key = TypeVar("Key")


@dataclass(slots=True)
class Lookout:
    """Tells the crews of one run which of those that wait can go on, as long as others work beside them.

    Interrupts that cannot be looked at now are looked at again: that costs no work anything, and is logged
    once.
    """

    interrupts: Interrupts
    clock: Clock
    crews: set[Crew[Any, Any]] = field(default_factory=set)
    heard: bool = False
    blind: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    def join(self, crew: Crew[Any, Any]) -> None:
        """Of `crew`, some wait."""
        self.crews.add(crew)
        self.moved.set()
        if self.task is None:
            self.interrupts.listen(self._hear)
            self.task = asyncio.create_task(self._look_forever(), name="lookout")

    def leave(self, crew: Crew[Any, Any]) -> None:
        self.crews.discard(crew)

    async def close(self) -> None:
        if self.task is not None:
            await end(self.task)

    def _hear(self) -> None:
        self.heard = True
        self.moved.set()

    async def _look_forever(self) -> None:
        pause_s = _SOON_S
        while True:
            self.heard = False
            found = {interrupt.id: interrupt for interrupt in await self._look()}
            for crew in self.crews if found else ():
                for heeded in crew.tell(found.keys()):
                    self.interrupts.take(found[heeded])
            late = not found and self._left_s() <= 0  # by this machine's clock, which does not decide
            pause_s = min(2 * pause_s, _LOOK_EVERY_S) if late else _SOON_S
            await self._rest(pause_s)

    async def _look(self) -> Sequence[Interrupt]:
        ids = frozenset[UUID]().union(*(one.ids for one in self._waiting()))
        try:
            found = await self.interrupts.over(ids) if ids else ()
        except Exception:
            if not self.blind:
                _log.warning("what a run waits for cannot be looked at", exc_info=True)
            self.blind = True
            return ()
        self.blind = False
        return found

    async def _rest(self, least_s: float) -> None:
        """Until somebody may have answered, a time may have come, or a while has passed."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while not self.heard:
            left_s = began + max(least_s, min(self._left_s(), _LOOK_EVERY_S)) - clock()
            if left_s <= 0:
                return
            self.moved.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    await self.moved.wait()

    def _waiting(self) -> Iterator[Suspended]:
        return (one for crew in self.crews for _, one in crew.waiting)

    def _left_s(self) -> float:
        """Seconds to the next time that somebody waits for."""
        dues = [one.due_ms for one in self._waiting() if one.due_ms is not None]
        return (min(dues) - self.clock.now_ms()) / 1000 if dues else math.inf


@dataclass(slots=True, eq=False)
class Crew(Generic[Key, T]):
    """Tasks that are told of as they end, and again when they waited (`Suspended`) and can go on: then they
    are to be begun anew."""

    lookout: Lookout
    working: dict[asyncio.Task[T], tuple[int, Key]] = field(default_factory=dict)
    waiting: list[tuple[Key, Suspended]] = field(default_factory=list)
    able: list[Key] = field(default_factory=list)
    ended: list[asyncio.Task[T]] = field(default_factory=list)
    begun: int = 0
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def idle(self) -> bool:
        return not self.working and not self.waiting and not self.able

    def begin(self, key: Key, work: Coroutine[Any, Any, T]) -> None:
        task = asyncio.create_task(work)
        self.working[task] = (self.begun, key)
        self.begun += 1
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[T]) -> None:
        self.ended.append(task)
        self.moved.set()

    def tell(self, over: Set[UUID]) -> Set[UUID]:
        """Those interrupts are over; answers which of them were waited for here."""
        heeded = set[UUID]()
        waiting, self.waiting = self.waiting, []
        for key, one in waiting:
            if those := one.ids & over:
                heeded |= those
                self.able.append(key)
                self.moved.set()
            else:
                self.waiting.append((key, one))
        return heeded

    async def changes(self) -> tuple[list[tuple[Key, asyncio.Task[T]]], list[Key]]:
        """Waits until some have ended, came to wait, or can go on. Answers the first, as they began, and the
        last."""
        if self.waiting and self.working:
            self.lookout.join(self)
        await self.moved.wait()
        self.moved.clear()
        able, self.able = self.able, []
        return self._over(), able

    def _over(self) -> list[tuple[Key, asyncio.Task[T]]]:
        """Those that have ended, but for those that wait from now on."""
        ended, self.ended = self.ended, []
        found = sorted((*self.working.pop(task), task) for task in ended) if ended else []
        over: list[tuple[Key, asyncio.Task[T]]] = []
        for _, key, task in found:
            error = task.exception()
            if isinstance(error, Suspended):
                self.waiting.append((key, error))
            else:
                over.append((key, task))
        return over

    async def dismiss(self) -> None:
        """Cancels all that still work."""
        self.lookout.leave(self)
        for task in self.working:
            task.cancel()
        await asyncio.gather(*self.working, return_exceptions=True)

    def suspended(self) -> Suspended:
        """Until the first of those that wait can go on."""
        return Suspended.all([one for _, one in self.waiting])


async def side_by_side(works: Sequence[Work], *, places: int, lookout: Lookout, ends: Ends) -> list[Any]:
    """See `Scope.side_by_side`. Who waited and can go on has the next place that is free."""
    crew = Crew[int, Any](lookout)
    found: list[Any] = [None] * len(works)
    queue = deque(range(len(works)))
    try:
        while queue or crew.working:
            while queue and len(crew.working) < places:
                index = queue.popleft()
                crew.begin(index, _begun(works[index]))
            ended, able = await crew.changes()
            queue.extendleft(reversed(able))
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


async def _begun(work: Work) -> Any:
    return await work()
