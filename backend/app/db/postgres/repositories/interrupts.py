"""What runs of one project wait for."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import ClassVar
from uuid import UUID

from sqlalchemy import Select, func, or_, select, update

from app.db.base import Json
from app.db.postgres.channels import RUN_COMMANDS, RUN_QUEUE
from app.db.postgres.models.agents import (
    SUSPENDED,
    Agent,
    AgentRun,
    AgentRunInterrupt,
    InterruptStatus,
    RunStatus,
)
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts

TIMER = "timer"


class Interrupts(Repository[AgentRunInterrupt]):
    """Questions to people; those of deleted agents are gone with them."""

    model = AgentRunInterrupt
    noun = "interrupt"
    sorts: ClassVar[Sorts] = {"created_at": AgentRunInterrupt.created_at}

    def visible(self) -> Select[AgentRunInterrupt]:
        return super().visible().where(AgentRunInterrupt.kind != TIMER, self._runs().exists())

    def matching(
        self,
        *,
        statuses: Collection[InterruptStatus] = (),
        assignees: Collection[str] = (),
        agent_id: UUID | None = None,
        run_id: UUID | None = None,
    ) -> Select[AgentRunInterrupt]:
        """Those for which everything that is given holds. Nothing is open in a run that has ended.

        `assignees` are compared in any case; what is assigned to nobody is everybody's.
        """
        statement = self.visible()
        if statuses:
            statement = statement.where(AgentRunInterrupt.status.in_(statuses))
        if InterruptStatus.OPEN in statuses:
            going_on = self._runs().where(AgentRun.finished_at.is_(None)).exists()
            statement = statement.where(or_(AgentRunInterrupt.status != InterruptStatus.OPEN, going_on))
        if assignees:
            wanted = func.lower(AgentRunInterrupt.assignee).in_([name.lower() for name in assignees])
            statement = statement.where(or_(AgentRunInterrupt.assignee.is_(None), wanted))
        if agent_id is not None:
            statement = statement.where(self._runs().where(AgentRun.agent_id == agent_id).exists())
        if run_id is not None:
            statement = statement.where(AgentRunInterrupt.run_id == run_id)
        return statement

    async def of_run(self, run_id: UUID, interrupt_id: UUID) -> AgentRunInterrupt:
        """One of a run, which nobody else changes until the end of the transaction."""
        statement = self.matching(run_id=run_id).where(AgentRunInterrupt.id == interrupt_id)
        found = await self.one_or_none(statement.with_for_update(key_share=True))
        if found is None:
            raise self.missing(interrupt_id)
        return found

    async def now(self) -> datetime:
        """By the clock that decides what is due."""
        now: datetime = (await self.session.execute(select(func.clock_timestamp()))).scalar_one()
        return now

    async def close(
        self, interrupt: AgentRunInterrupt, *, choice: str | None, data: Json, answered_by: str
    ) -> None:
        """Takes the answer, and lets the run go on: `interrupt` is locked, and so is its run."""
        interrupt.status = InterruptStatus.ANSWERED
        interrupt.choice, interrupt.data, interrupt.answered_by = choice, data, answered_by
        interrupt.closed_at = func.now()
        of_run = (AgentRun.org_id == interrupt.org_id, AgentRun.id == interrupt.run_id)
        await self.session.execute(update(AgentRun).where(*of_run).values(answers=AgentRun.answers + 1))
        await self.session.execute(
            update(AgentRun)
            .where(*of_run, AgentRun.status.in_(SUSPENDED))
            .values(status=RunStatus.QUEUED, due_at=None)
        )
        await self.session.execute(select(func.pg_notify(RUN_QUEUE, "")))
        await self.session.execute(select(func.pg_notify(RUN_COMMANDS, interrupt.run_id.hex)))
        await self.session.flush()

    def _runs(self) -> Select[AgentRun]:
        """The run of an interrupt, if its agent was not deleted."""
        agent = select(Agent.id).where(
            Agent.org_id == AgentRun.org_id, Agent.id == AgentRun.agent_id, Agent.deleted_at.is_(None)
        )
        return select(AgentRun).where(
            AgentRun.org_id == AgentRunInterrupt.org_id,
            AgentRun.id == AgentRunInterrupt.run_id,
            agent.correlate(AgentRun).exists(),
        )
