"""Who waits for news of which run, in this process. A hint only: what counts is what is stored."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from uuid import UUID


@dataclass(slots=True)
class Watch:
    waiting: defaultdict[UUID, set[asyncio.Event]] = field(default_factory=lambda: defaultdict(set))

    def notify(self, run_id: UUID) -> None:
        for event in self.waiting.get(run_id, ()):
            event.set()

    @contextmanager
    def watching(self, run_id: UUID) -> Iterator[asyncio.Event]:
        """An event that is set whenever something of the run was stored; clear it before looking."""
        news = asyncio.Event()
        self.waiting[run_id].add(news)
        try:
            yield news
        finally:
            self.waiting[run_id].discard(news)
            if not self.waiting[run_id]:
                del self.waiting[run_id]


async def news_or_timeout(news: asyncio.Event, timeout_s: float) -> None:
    """Returns when there may be something new: told so, or because another process wrote it."""
    with suppress(TimeoutError):
        await asyncio.wait_for(news.wait(), timeout_s)
