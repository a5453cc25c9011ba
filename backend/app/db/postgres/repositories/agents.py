"""Agents, their versions, and runs with their steps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    Text,
    and_,
    cast,
    delete,
    func,
    literal,
    literal_column,
    or_,
    select,
)
from sqlalchemy import column as column_
from sqlalchemy.dialects.postgresql import JSONB, JSONPATH, insert

from app.core.errors import Conflict
from app.core.ids import new_id
from app.db.base import Json
from app.db.postgres.channels import RUN_COMMANDS
from app.db.postgres.models.agents import (
    Agent,
    AgentRun,
    AgentRunCheckpoint,
    AgentRunCheckpointWrite,
    AgentRunCommand,
    AgentRunEvent,
    AgentRunStep,
    AgentVersion,
    CommandKind,
    RunStatus,
)
from app.db.postgres.repositories.base import Repository
from app.db.postgres.repositories.listing import Sorts, contains


class Agents(Repository[Agent]):
    """Agents of one project that are not deleted."""

    model = Agent
    noun = "agent"
    sorts: ClassVar[Sorts] = {"created_at": Agent.created_at, "name": Agent.name}
    large = (Agent.draft,)

    def visible(self) -> Select[Agent]:
        return super().visible().where(Agent.deleted_at.is_(None))

    async def editable(self, reference: str) -> Agent:
        """The agent, locked until the end of the transaction; `Conflict` where it is archived."""
        agent = await self.find(reference, lock=True)
        if agent.archived_at is not None:
            raise archived(agent.slug)
        return agent

    async def slugged(self, slug: str) -> Agent | None:
        """The agent with this slug, if there is one, locked until the end of the transaction."""
        statement = self.visible().where(Agent.slug == slug)
        return await self.one_or_none(statement.with_for_update(key_share=True))

    async def hide(self, agent: Agent) -> None:
        """Deletes the agent for everybody but the work that erases it."""
        agent.deleted_at = func.now()
        await self.session.flush()

    async def erase(self, agent_id: UUID) -> None:
        """Deletes the row, and by its foreign keys its versions."""
        await self.session.execute(
            delete(Agent).where(Agent.org_id == self.tenant.org_id, Agent.id == agent_id)
        )


def archived(slug: str) -> Conflict:
    """Why nothing is done with an archived agent."""
    return Conflict(
        f"The agent {slug!r} is archived: unarchive it (POST /api/v1/agents/{slug}/unarchive) first.",
        code="archived",
    )


class AgentVersions(Repository[AgentVersion]):
    model = AgentVersion
    noun = "agent version"
    by_project = False
    sorts: ClassVar[Sorts] = {"created_at": AgentVersion.created_at, "version": AgentVersion.version}
    large = (AgentVersion.graph, AgentVersion.bindings)

    async def number(self, agent_id: UUID, version: int) -> AgentVersion | None:
        statement = self.visible().where(AgentVersion.agent_id == agent_id, AgentVersion.version == version)
        return await self.one_or_none(statement)

    async def of(self, agent_id: UUID, version_id: UUID) -> AgentVersion | None:
        """One of an agent's versions, also a snapshot of its draft."""
        statement = self.visible().where(AgentVersion.agent_id == agent_id, AgentVersion.id == version_id)
        return await self.one_or_none(statement)

    async def of_project(self, version_id: UUID) -> AgentVersion:
        """A version, also a snapshot, of some agent of the project."""
        agents = Agents(self.session, self.tenant).visible().with_only_columns(Agent.id)
        statement = self.visible().where(AgentVersion.id == version_id, AgentVersion.agent_id.in_(agents))
        version = await self.one_or_none(statement)
        if version is None:
            raise self.missing(version_id)
        return version

    def published(self, agent_id: UUID) -> Select[AgentVersion]:
        return self.visible().where(AgentVersion.agent_id == agent_id, AgentVersion.version.is_not(None))

    async def newest_number(self, agent_id: UUID) -> int:
        """0 where nothing was published yet."""
        statement = select(func.coalesce(func.max(AgentVersion.version), 0)).where(
            AgentVersion.org_id == self.tenant.org_id, AgentVersion.agent_id == agent_id
        )
        return (await self.session.execute(statement)).scalar_one() or 0

    async def snapshot(
        self, agent_id: UUID, *, graph: Json, bindings: Json, content_hash: str
    ) -> AgentVersion:
        """The unpublished version with this content, made if it is not there."""
        same = self.visible().where(
            AgentVersion.agent_id == agent_id,
            AgentVersion.content_hash == content_hash,
            AgentVersion.version.is_(None),
        )
        values = {
            "org_id": self.tenant.org_id,
            "id": new_id(),
            "agent_id": agent_id,
            "graph": graph,
            "bindings": bindings,
            "content_hash": content_hash,
            "note": "",
        }
        await self.session.execute(insert(AgentVersion).values(**values).on_conflict_do_nothing())
        return (await self.session.execute(same)).scalar_one()


class Runs(Repository[AgentRun]):
    """Runs of one project's agents; those of a deleted agent are gone with it."""

    model = AgentRun
    noun = "run"
    sorts: ClassVar[Sorts] = {"created_at": AgentRun.created_at}
    large = (AgentRun.input, AgentRun.output, AgentRun.usage, AgentRun.run_metadata)

    def visible(self) -> Select[AgentRun]:
        agent = select(Agent.id).where(
            Agent.org_id == AgentRun.org_id, Agent.id == AgentRun.agent_id, Agent.deleted_at.is_(None)
        )
        return super().visible().where(agent.exists())

    def matching(
        self,
        *,
        statuses: Sequence[RunStatus] = (),
        agent_id: UUID | None = None,
        version_id: UUID | None = None,
        after: datetime | None = None,
        before: datetime | None = None,
    ) -> Select[AgentRun]:
        """The visible runs for which everything that is given holds."""
        statement = self.visible()
        if statuses:
            statement = statement.where(AgentRun.status.in_(statuses))
        if agent_id is not None:
            statement = statement.where(AgentRun.agent_id == agent_id)
        if version_id is not None:
            statement = statement.where(AgentRun.version_id == version_id)
        if after is not None:
            statement = statement.where(AgentRun.created_at > after)
        if before is not None:
            statement = statement.where(AgentRun.created_at < before)
        return statement

    def holding(self, text: str, among: Select[AgentRun], *, newest: int) -> Select[AgentRun]:
        """Those of `among` whose id begins with `text`, or whose input or output has it in a value, in any
        case. Only the `newest` of them are looked into, which bounds what it costs."""
        times = among.with_only_columns(AgentRun.created_at, maintain_column_froms=True)
        oldest = times.order_by(AgentRun.created_at.desc()).offset(newest - 1).limit(1).scalar_subquery()
        since = func.coalesce(oldest, literal_column("'-infinity'::timestamptz"))
        found = or_(
            cast(AgentRun.id, Text).startswith(text.lower(), autoescape=True),
            _has_text(AgentRun.input, text),
            _has_text(AgentRun.output, text),
        )
        return among.where(AgentRun.created_at >= since, found)

    async def open_of(self, agent_id: UUID) -> UUID | None:
        """The oldest run of the agent that has not ended."""
        statement = select(AgentRun.id).where(
            AgentRun.org_id == self.tenant.org_id,
            AgentRun.agent_id == agent_id,
            AgentRun.finished_at.is_(None),
        )
        return (await self.session.execute(statement.order_by(AgentRun.id).limit(1))).scalar_one_or_none()

    async def erase_of(self, agent_id: UUID, *, limit: int) -> int:
        """Deletes `limit` runs of an agent with their logs, which no foreign key ties to them; how many."""
        org = self.tenant.org_id
        oldest = select(AgentRun.id).where(AgentRun.org_id == org, AgentRun.agent_id == agent_id)
        oldest = oldest.order_by(AgentRun.created_at, AgentRun.id).limit(limit)
        runs = list((await self.session.execute(oldest)).scalars())
        for log in (AgentRunEvent, AgentRunStep, AgentRunCheckpoint, AgentRunCheckpointWrite):
            await self.session.execute(delete(log).where(log.org_id == org, log.run_id.in_(runs)))
        await self.session.execute(delete(AgentRun).where(AgentRun.org_id == org, AgentRun.id.in_(runs)))
        return len(runs)

    async def request_cancel(self, run_id: UUID) -> None:
        """A durable command; whoever holds the run's lease obeys it. Nothing where the run has ended."""
        open_run = select(AgentRun.id).where(
            AgentRun.org_id == self.tenant.org_id, AgentRun.id == run_id, AgentRun.finished_at.is_(None)
        )
        if (await self.session.execute(open_run)).first() is not None:
            self.session.add(
                AgentRunCommand(org_id=self.tenant.org_id, run_id=run_id, kind=CommandKind.CANCEL)
            )
            await self.session.execute(select(func.pg_notify(RUN_COMMANDS, run_id.hex)))


_VALUES = cast(literal('strict $.** ? (@.type() == "string" || @.type() == "number")'), JSONPATH)


def _has_text(column: Any, text: str) -> ColumnElement[bool]:
    """Whether a text or number anywhere in a JSON column has `text` in it; keys do not count.

    The whole column as text, which costs a tenth, tells most rows that have it nowhere.
    """
    written = json.dumps(text, ensure_ascii=False)[1:-1]
    values = (
        func.jsonb_path_query(cast(column, JSONB), _VALUES)
        .table_valued(column_("value", JSONB))
        .render_derived()
    )
    said = values.c.value.op("#>>", return_type=Text())(literal_column("'{}'"))
    there = select(1).select_from(values).where(contains(text, said)).correlate(AgentRun).exists()
    return and_(contains(written, cast(column, Text)), there)


class RunSteps(Repository[AgentRunStep]):
    """The journals of one organization's runs, by default in the order in which the steps began."""

    model = AgentRunStep
    noun = "step"
    by_project = False
    sorts: ClassVar[Sorts] = {"started_at": AgentRunStep.started_at}
    usual_sort = "started_at"
    identity = ("node_path", "visit", "call")

    def of(self, run_id: UUID) -> Select[AgentRunStep]:
        return self.visible().where(AgentRunStep.run_id == run_id)


class RunCheckpoints(RunSteps):
    """What came to an end in a run, in the order in which it did."""

    noun = "checkpoint"
    sorts: ClassVar[Sorts] = {"seq": AgentRunStep.seq}
    usual_sort = "seq"

    def of(self, run_id: UUID) -> Select[AgentRunStep]:
        return (
            super().of(run_id).where(AgentRunStep.seq > 0, AgentRunStep.status.not_in(("started", "waiting")))
        )

    async def places(self, run_id: UUID) -> Sequence[int]:
        """Where they are in the run's log."""
        seq = AgentRunStep.seq
        statement = self.of(run_id).with_only_columns(seq).distinct().order_by(seq)
        return [place for place in (await self.session.execute(statement)).scalars() if place is not None]
