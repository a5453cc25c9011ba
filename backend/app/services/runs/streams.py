"""Reading a run's event log: a page of it, or following it until its terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from uuid import UUID

from app.db.postgres.models.agents import SUSPENDED
from app.db.session import Database, Tenant
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.retention import is_log_kept
from app.services.runs.watch import Watch, Watcher, news_or_timeout

POLL_S = 1.0
_POLL_HEARING_S = 5.0
PAGE = 500

_PAGE = """
    SELECT run_id, seq, ts, node_path, type, event::text FROM agent_run_events
    WHERE org_id = $1 AND run_id = $2 AND seq > $3 ORDER BY seq LIMIT $4
"""
_ENDED = "SELECT finished_at IS NOT NULL, status FROM agent_runs WHERE org_id = $1 AND id = $2"


@dataclass(frozen=True, slots=True)
class RunStreams:
    """Streams of one organization's runs. Whoever asks has checked that the run is theirs."""

    database: Database
    watch: Watch

    async def page(self, tenant: Tenant, run_id: UUID, *, after: int, limit: int = PAGE) -> list[LoggedEvent]:
        async with self.database.reading(tenant) as connection:
            rows = await connection.fetch(_PAGE, tenant.org_id, run_id, after, limit)
        return [LoggedEvent(*row) for row in rows]

    async def follow(
        self, tenant: Tenant, run_id: UUID, *, after: int = 0
    ) -> AsyncGenerator[LoggedEvent, None]:
        """Every event after `after`, as it is stored; ends with the terminal one."""
        async with aclosing(self.batches(tenant, run_id, after=after)) as batches:
            async for events in batches:
                for event in events:
                    yield event

    async def batches(
        self, tenant: Tenant, run_id: UUID, *, after: int = 0
    ) -> AsyncGenerator[Sequence[LoggedEvent], None]:
        """The events of `follow`, together as they become known.

        What this process stores is handed on from memory; the table is read for what was before, for what
        other processes store, and where a reader was too slow.
        """
        with self.watch.watching(run_id) as watcher:
            events: list[LoggedEvent] = []
            if not self.watch.has_seen_all(run_id, after):
                events = await self.page(tenant, run_id, after=after)
                if not events and after and await self._ended(tenant, run_id):
                    return  # `after` lies behind the last event
            while True:
                if events:
                    yield events
                    if events[-1].terminal:
                        return
                    after = events[-1].seq
                events = await self._next(watcher, tenant, run_id, after=after, more=len(events) == PAGE)
                if not events and not await is_log_kept(self.database, run_id):
                    return  # while it was read

    async def _next(
        self, watcher: Watcher, tenant: Tenant, run_id: UUID, *, after: int, more: bool
    ) -> list[LoggedEvent]:
        """What comes after `after`, or nothing where nothing came for a while; `more` is there already."""
        if not more:
            await news_or_timeout(watcher.news, _POLL_HEARING_S if self.watch.heard else POLL_S)
        rows = [row for row in watcher.taken() if row.seq > after]
        if rows and rows[0].seq == after + 1 and rows[-1].seq - after == len(rows):
            return rows
        return await self.page(tenant, run_id, after=after)

    async def ended(
        self, tenant: Tenant, run_id: UUID, *, timeout_s: float, or_suspended: bool = False
    ) -> bool:
        """Waits until the run has ended, `or_suspended`, at most `timeout_s`; answers whether it has."""
        with suppress(TimeoutError), self.watch.watching(run_id) as watcher:
            async with asyncio.timeout(timeout_s):
                while True:
                    watcher.taken()  # before looking, so that an end meanwhile is not overheard
                    if await self._ended(tenant, run_id, or_suspended=or_suspended):
                        return True
                    await news_or_timeout(watcher.news, POLL_S)
        return False

    async def _ended(self, tenant: Tenant, run_id: UUID, *, or_suspended: bool = False) -> bool:
        async with self.database.reading(tenant) as connection:
            rows = await connection.fetch(_ENDED, tenant.org_id, run_id)
        return bool(rows and (rows[0][0] or (or_suspended and rows[0][1] in SUSPENDED)))
