"""Who waits for news of which run, in this process. A hint only: what counts is what is stored."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID

from app.services.runs.logged_event import LoggedEvent

_KEPT = 1_000


@dataclass(eq=False, slots=True)
class Watcher:
    """One reader of one run. `rows` are events that were stored while it watched, in order.

    A reader that is too slow finds them gone (`rows` begin later than what it saw last) and reads the table.
    """

    news: asyncio.Event = field(default_factory=asyncio.Event)
    rows: deque[LoggedEvent] = field(default_factory=lambda: deque(maxlen=_KEPT))

    def taken(self) -> list[LoggedEvent]:
        """The rows so far, and no news any more."""
        self.news.clear()
        rows = list(self.rows)
        self.rows.clear()
        return rows


@dataclass(slots=True)
class Watch:
    """`heard`: whether other processes' writes are told to us; else readers must look for themselves.

    `stored`: of runs that this process writes, and that have not ended, the last event that is stored.
    """

    waiting: defaultdict[UUID, set[Watcher]] = field(default_factory=lambda: defaultdict(set))
    stored: dict[UUID, int] = field(default_factory=dict)
    heard: bool = False

    def has_seen_all(self, run_id: UUID, seq: int) -> bool:
        """Whether nothing after `seq` is stored yet, as far as is known without asking the database."""
        return run_id in self.stored and self.stored[run_id] <= seq

    def notify(self, run_id: UUID) -> None:
        """Something of the run was stored, by whomever."""
        for watcher in self.waiting.get(run_id, ()):
            watcher.news.set()

    def notify_all(self) -> None:
        for run_id in list(self.waiting):
            self.notify(run_id)

    def deliver(self, run_id: UUID, rows: Sequence[LoggedEvent]) -> None:
        """These events of the run were stored by this process."""
        if rows and run_id in self.stored:
            self.stored[run_id] = rows[-1].seq
            if rows[-1].terminal:
                del self.stored[run_id]
        for watcher in self.waiting.get(run_id, ()):
            watcher.rows.extend(rows)
            watcher.news.set()

    @contextmanager
    def watching(self, run_id: UUID) -> Iterator[Watcher]:
        """Hears of whatever of the run is stored inside the block."""
        watcher = Watcher()
        self.waiting[run_id].add(watcher)
        try:
            yield watcher
        finally:
            self.waiting[run_id].discard(watcher)
            if not self.waiting[run_id]:
                del self.waiting[run_id]


async def news_or_timeout(news: asyncio.Event, timeout_s: float) -> bool:
    """Whether there is something new, or so it was said, within the time."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await news.wait()
    return news.is_set()
