"""Runs of one project's agents: created, waited for, looked at, cancelled.

Creating and waiting is what every caller pays for, so it goes to the driver with fixed statements.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.agent.graph.executable import ExecutableAgent
from app.core.errors import FieldError, Invalid
from app.core.failpoints import failpoint
from app.core.ids import new_id
from app.core.paging import Page, PageRequest
from app.core.slugs import as_uuid
from app.db.base import Json
from app.db.postgres.channels import RUN_QUEUE
from app.db.postgres.models.agents import (
    Agent,
    AgentRun,
    AgentRunStep,
    AgentVersion,
    RunMode,
    RunOrigin,
    RunStatus,
)
from app.db.postgres.repositories.agents import Agents, AgentVersions, RunCheckpoints, Runs, RunSteps
from app.db.postgres.repositories.usage import GroupBy, ProjectUsage, Used
from app.db.session import Database, Tenant
from app.services.agent_service import AgentService
from app.services.runs.execution import Execution
from app.services.runs.executor import Executor
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.replays import recording_of
from app.services.runs.retention import demand_log
from app.services.runs.stored_json import stored_json
from app.services.runs.streams import RunStreams
from app.services.runs.timeline import Timeline, TimelineLimits, timeline_of
from app.services.runs.versions import checked_input, load_agent

_INSERT = """
    WITH version AS ({version})
    INSERT INTO agent_runs (org_id, id, project_id, mode, status, input, metadata, fence, lease_owner,
        lease_until, started_at, last_seq, agent_id, version_id)
    SELECT $1, $2, $3, $4, $5, CAST($6 AS json), CAST($7 AS jsonb), $8, $9,
        CASE WHEN $10::float8 IS NOT NULL THEN now() + make_interval(secs => $10::float8) END,
        CASE WHEN $10::float8 IS NOT NULL THEN now() END, 0, version.agent_id, version.id
    FROM version
    RETURNING agent_id, version_id, created_at, started_at
"""
_PUBLISHED = """
    SELECT a.id AS agent_id, v.id FROM agents a
    JOIN agent_versions v ON v.org_id = a.org_id AND v.agent_id = a.id
        AND v.version = COALESCE($12::int, a.live_version)
    WHERE a.org_id = $1 AND a.project_id = $3 AND a.deleted_at IS NULL AND a.archived_at IS NULL
        AND a.{column} = $11
    FOR SHARE OF a
"""
_DRAFT = """
    SELECT id AS agent_id, $12::uuid AS id FROM agents
    WHERE org_id = $1 AND id = $11 AND deleted_at IS NULL AND archived_at IS NULL FOR SHARE
"""
_INSERT_BY_SLUG = _INSERT.format(version=_PUBLISHED.format(column="slug"))
_INSERT_BY_ID = _INSERT.format(version=_PUBLISHED.format(column="id"))
_INSERT_DRAFT = _INSERT.format(version=_DRAFT)
"""Create a run of an agent that cannot be deleted or archived before its run is there; nothing where there
is none."""

_USUAL_SPAN, _LONGEST_SPAN = timedelta(days=30), timedelta(days=366)
_FIRST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """`version` is `live`, `draft` or a number."""

    input: Json
    mode: RunMode
    version: str | int = "live"
    metadata: Json | None = None


@dataclass(frozen=True, slots=True)
class RunFilters:
    """All that are given must hold. `version` is an id, or a number of `agent`; times are exclusive.

    `q` begins the id or is in a value of input or output; only the newest runs are looked into.
    """

    statuses: Sequence[RunStatus] = ()
    agent: str | None = None
    version: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    q: str | None = None


@dataclass(slots=True)
class CreatedRun:
    """An `AgentRun` that this process has just created, without SQLAlchemy's notes on each attribute."""

    id: UUID
    mode: RunMode
    status: RunStatus
    input: Json
    run_metadata: Json
    agent_id: UUID
    version_id: UUID
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None = None
    parent_run_id: UUID | None = None
    made_by: RunOrigin | None = None
    output: Json | None = None
    error: Json | None = None
    usage: Json | None = None


@dataclass(frozen=True, slots=True)
class UsageOverTime:
    """What the runs made from `since` up to `until` used; `items` are the parts of `total`."""

    group_by: GroupBy
    since: datetime
    until: datetime
    total: Used
    items: Sequence[Used]


class _NotThere(Exception):
    """There is no such version."""


@dataclass(slots=True)
class RunService:
    """A run outlives its request: it is executed by `executor`, here or elsewhere."""

    database: Database
    tenant: Tenant
    agents: AgentService
    executor: Executor
    streams: RunStreams
    text_search_limit: int = 10_000
    timeline_limits: TimelineLimits = field(default_factory=TimelineLimits)

    async def start(self, reference: str, request: RunRequest) -> CreatedRun:
        """Creates the run; starts it detached from the caller, or leaves it to whoever has room for it."""
        if request.mode is RunMode.BACKGROUND:
            run, _, _ = await self._created(reference, request)
            self.executor.queue_news.set()
            return run
        with self.executor.reserved():
            run, agent, inputs = await self._created(reference, request)
            self.executor.start(Execution(self.tenant, run.id, 1, agent, inputs))
            return run

    async def _created(self, reference: str, request: RunRequest) -> tuple[CreatedRun, ExecutableAgent, Json]:
        """The run, its agent and its inputs with defaults."""
        run_id, version = new_id(), request.version
        draft = await self.agents.snapshot(reference) if version == "draft" else None
        query, sought = _version_sought(reference, version, draft)
        status = RunStatus.QUEUED if request.mode is RunMode.BACKGROUND else RunStatus.RUNNING
        try:
            async with self.database.writing(self.tenant, subject_id=run_id) as connection:
                rows = await connection.fetch(query, *self._columns(run_id, request, status), *sought)
                if not rows:
                    raise _NotThere  # inside, so that nothing of the request is kept
                run = CreatedRun(
                    run_id, request.mode, status, request.input, request.metadata or {}, *rows[0]
                )
                agent = await load_agent(connection, self.executor.factory, self.tenant, run.version_id)
                inputs = checked_input(agent, request.input)
                if status is RunStatus.QUEUED:
                    await connection.fetch("SELECT pg_notify($1, '')", RUN_QUEUE)
                failpoint("run.creating")
        except _NotThere:
            raise await self.agents.unrunnable(reference, version) from None
        failpoint("run.created")
        return run, agent, inputs

    def _columns(self, run_id: UUID, request: RunRequest, status: RunStatus) -> tuple[object, ...]:
        """What `_INSERT` takes, but for what it seeks the version by."""
        ours = status is RunStatus.RUNNING
        return (
            *(self.tenant.org_id, run_id, self.tenant.project, request.mode, status),
            *(stored_json(request.input), stored_json(request.metadata or {}), int(ours)),
            *((self.executor.owner, self.executor.lease_s) if ours else (None, None)),
        )

    async def get(self, run_id: UUID) -> AgentRun:
        async with self.database.unit_of_work(self.tenant) as session:
            return await Runs(session, self.tenant).get(run_id)

    async def page(self, request: PageRequest, filters: RunFilters | None = None) -> Page[AgentRun]:
        """Without inputs and outputs; `NotFound` where a filter names what is not there."""
        wanted = filters or RunFilters()
        async with self.database.unit_of_work(self.tenant) as session:
            agent = await Agents(session, self.tenant).find(wanted.agent) if wanted.agent else None
            version = await self._wanted(session, agent, wanted.version) if wanted.version else None
            runs = Runs(session, self.tenant)
            statement = runs.matching(
                statuses=wanted.statuses,
                agent_id=agent.id if agent else None,
                version_id=version.id if version else None,
                after=wanted.created_after,
                before=wanted.created_before,
            )
            if wanted.q is not None:
                statement = runs.holding(wanted.q, statement, newest=self.text_search_limit)
            return await runs.page(request, statement)

    async def usage(
        self, group_by: GroupBy, *, since: datetime | None = None, until: datetime | None = None
    ) -> UsageOverTime:
        """By default of the last 30 days; `Invalid` for what is no time, or too long a one."""
        until = until or datetime.now(UTC)
        since = since or until - min(_USUAL_SPAN, until - _FIRST)
        if not timedelta(0) < until - since <= _LONGEST_SPAN:
            raise _no_span(since, until)
        async with self.database.unit_of_work(self.tenant) as session:
            total, items = await ProjectUsage(session, self.tenant).by(group_by, since=since, until=until)
        return UsageOverTime(group_by, since, until, total, items)

    async def _wanted(self, session: AsyncSession, agent: Agent | None, reference: str) -> AgentVersion:
        if agent is not None:
            return await self.agents.version_of(session, agent, reference)
        version_id = as_uuid(reference)
        if version_id is None:
            raise _needs_agent(reference)
        return await AgentVersions(session, self.tenant).of_project(version_id)

    async def steps(self, run_id: UUID, request: PageRequest) -> Page[AgentRunStep]:
        async with self.database.unit_of_work(self.tenant) as session:
            await Runs(session, self.tenant).get(run_id)
        await demand_log(self.database, run_id)
        async with self.database.unit_of_work(self.tenant) as session:
            steps = RunSteps(session, self.tenant)
            return await steps.page(request, steps.of(run_id))

    async def timeline(self, run_id: UUID) -> Timeline:
        """What each node of the run read, did and gave, so far. Nothing is executed but what is pure."""
        run = await self.get(run_id)
        await demand_log(self.database, run_id)
        if run.last_seq == 0:
            return Timeline([])
        made_of = run.parent_run_id if run.made_by is RunOrigin.REPLAY else None
        recording = await recording_of(self.database, self.tenant, run_id, made_of=made_of)
        outfit = self.executor.outfit
        async with self.database.reading(self.tenant) as connection:
            agent = await load_agent(connection, outfit.factory, self.tenant, run.version_id)
        inputs = agent.validate_input(run.input)
        execution = Execution(self.tenant, run_id, 0, agent, inputs)
        return await timeline_of(recording, execution, outfit, self.timeline_limits)

    async def checkpoints(self, run_id: UUID, request: PageRequest) -> Page[AgentRunStep]:
        async with self.database.unit_of_work(self.tenant) as session:
            await Runs(session, self.tenant).get(run_id)
        await demand_log(self.database, run_id)
        async with self.database.unit_of_work(self.tenant) as session:
            checkpoints = RunCheckpoints(session, self.tenant)
            return await checkpoints.page(request, checkpoints.of(run_id))

    async def wait(self, run_id: UUID, *, timeout_s: float, suspended: bool = True) -> AgentRun:
        """The run when it has ended, wherever that is, or as it is after `timeout_s`.

        A run that is suspended is not waited for, unless `suspended` is False.
        """
        clock = asyncio.get_running_loop().time
        give_up = clock() + timeout_s
        if await self.executor.finished(run_id, timeout_s=timeout_s) is None and clock() < give_up:
            left_s = give_up - clock()
            await self.streams.ended(self.tenant, run_id, timeout_s=left_s, or_suspended=suspended)
        return await self.get(run_id)

    async def outcome(self, run: AgentRun | CreatedRun, *, timeout_s: float) -> AgentRun | CreatedRun:
        """`wait` for a run whose row is at hand: if it ends here, the database is not asked again."""
        if run.id not in self.executor.tasks:
            return run if run.finished_at else await self.wait(run.id, timeout_s=timeout_s)
        clock = asyncio.get_running_loop().time
        give_up = clock() + timeout_s
        left = await self.executor.finished(run.id, timeout_s=timeout_s)
        if left is None:
            return await self.wait(run.id, timeout_s=max(0, give_up - clock()))
        ending = left.ending
        run.status, run.finished_at = RunStatus(ending.status), left.finished_at
        run.output, run.error, run.usage = ending.output, ending.error, ending.usage
        return run

    async def events(self, run_id: UUID, *, after: int) -> AsyncGenerator[Sequence[LoggedEvent], None]:
        """Checks that the run is ours, then follows its log; `Gone` where that is not kept any more."""
        await self.get(run_id)
        await demand_log(self.database, run_id)
        return self.follow(run_id, after=after)

    def follow(self, run_id: UUID, *, after: int) -> AsyncGenerator[Sequence[LoggedEvent], None]:
        """The log of a run that is known to be ours, event by event or several together."""
        return self.streams.batches(self.tenant, run_id, after=after)

    async def cancel(self, run_id: UUID) -> AgentRun:
        """Asks for the end of a run; `wait` for it. A run that has ended stays as it is."""
        async with self.database.unit_of_work(self.tenant) as session:
            runs = Runs(session, self.tenant)
            await runs.get(run_id)
            await runs.request_cancel(run_id)
        if not self.executor.cancel(run_id):
            self.executor.queue_news.set()  # it may wait to be claimed, which is when it ends
        return await self.get(run_id)


def _version_sought(
    reference: str, version: str | int, draft: AgentVersion | None
) -> tuple[str, tuple[object, object]]:
    """The statement that finds it, and by what."""
    if draft is not None:
        return _INSERT_DRAFT, (draft.agent_id, draft.id)
    number = None if version == "live" else int(version)
    agent_id = as_uuid(reference)
    return (_INSERT_BY_ID, (agent_id, number)) if agent_id else (_INSERT_BY_SLUG, (reference, number))


def _no_span(since: datetime, until: datetime) -> Invalid:
    message = (
        f"from {since.isoformat()} to {until.isoformat()}: `from` must lie before `to`, "
        f"{_LONGEST_SPAN.days} days at most"
    )
    return Invalid(message, errors=[FieldError("/query/from", "invalid_value", message)])


def _needs_agent(version: str) -> Invalid:
    message = f"{version!r} is no id; a version's number needs the filter `agent` beside it"
    return Invalid(message, errors=[FieldError("/query/version", "agent_missing", message)])
