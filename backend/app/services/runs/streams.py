"""Reading a run's event log: a page of it, or following it until its terminal event."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from app.db.base import Json
from app.db.postgres.models.agents import AgentRun, AgentRunEvent
from app.db.session import Database, Tenant
from app.services.runs.watch import Watch, news_or_timeout

POLL_S = 1.0
PAGE = 500


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One row of the log; `seq` counts from 1 without gaps."""

    run_id: UUID
    seq: int
    ts: datetime
    node_path: str
    type: str
    event: Json

    @property
    def terminal(self) -> bool:
        return self.type in ("RUN_FINISHED", "RUN_ERROR")


@dataclass(frozen=True, slots=True)
class RunStreams:
    """Streams of one organization's runs. Whoever asks has checked that the run is theirs."""

    database: Database
    watch: Watch

    async def page(self, tenant: Tenant, run_id: UUID, *, after: int, limit: int = PAGE) -> list[LoggedEvent]:
        e = AgentRunEvent
        statement = (
            select(e.run_id, e.seq, e.ts, e.node_path, e.type, e.event)
            .where(e.org_id == tenant.org_id, e.run_id == run_id, e.seq > after)
            .order_by(e.seq)
            .limit(limit)
        )
        async with self.database.unit_of_work(tenant) as session:
            return [LoggedEvent(*row) for row in (await session.execute(statement))]

    async def follow(self, tenant: Tenant, run_id: UUID, *, after: int = 0) -> AsyncIterator[LoggedEvent]:
        """Every event after `after`, as it is stored; ends with the terminal one."""
        with self.watch.watching(run_id) as news:
            ended = False
            while True:
                news.clear()
                events = await self.page(tenant, run_id, after=after)
                for event in events:
                    yield event
                    after = event.seq
                    if event.terminal:
                        return
                if events:
                    continue
                if ended:
                    return  # `after` lies behind the last event
                ended = await self._ended(tenant, run_id)
                if not ended:
                    await news_or_timeout(news, POLL_S)

    async def ended(self, tenant: Tenant, run_id: UUID, *, timeout_s: float) -> bool:
        """Waits until the run has ended, at most `timeout_s`; answers whether it has."""
        with suppress(TimeoutError), self.watch.watching(run_id) as news:
            async with asyncio.timeout(timeout_s):
                while True:
                    news.clear()  # before looking, so that an end meanwhile is not overheard
                    if await self._ended(tenant, run_id):
                        return True
                    await news_or_timeout(news, POLL_S)
        return False

    async def _ended(self, tenant: Tenant, run_id: UUID) -> bool:
        statement = select(AgentRun.finished_at).where(
            AgentRun.org_id == tenant.org_id, AgentRun.id == run_id
        )
        async with self.database.unit_of_work(tenant) as session:
            return (await session.execute(statement)).scalar_one_or_none() is not None
