"""What executes runs, without a server before it; each test works in an organization of its own.

Modules here run on the loop of the session: `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import pytest_asyncio
from ag_ui.core import RunFinishedEvent
from sqlalchemy import Text, cast, func, select, text
from sqlalchemy.exc import DBAPIError

from app.agent.factory import AgentFactory
from app.core.ids import new_id
from app.db.postgres.models.agents import Agent, AgentRun, AgentRunEvent, AgentVersion, RunMode, RunStatus
from app.db.session import Database, Tenant
from app.embedded import Services
from app.resources import Resources, open_resources
from app.services.agent_service import AgentService
from app.services.run_service import CreatedRun, RunRequest, RunService
from app.services.runs import event_log
from app.services.runs import executor as executor_module
from app.services.runs.event_log import EventLog
from app.services.runs.executor import Executor
from app.services.runs.leases import LOCAL, Lease
from app.services.runs.logged_event import LoggedEvent
from app.services.runs.outfit import Outfit
from app.services.runs.run_log import Ending, FencedOff, RunLog
from app.services.runs.stored_json import event_json
from app.services.runs.streams import RunStreams
from app.services.runs.watch import Watch
from tests.factories import Factory, Gate, Member
from tests.fixtures import settings_for
from tests.graphs import HELLO_GRAPH


async def finish(run: RunLog, ending: Ending | None = None) -> bool:
    """Ends a run as its executor would, with or without a writer at work; False when fenced off."""
    leaving = asyncio.ensure_future(run.leave(ending or succeeded(run.lease)))
    await asyncio.sleep(0)
    await run.log.flush()
    try:
        await leaving
    except FencedOff:
        return False
    return True


def failing(times: int) -> Any:
    """`store`, whose connection breaks the first `times`."""
    real, left = event_log.store, [times]

    async def store(*arguments: Any, **named: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise DBAPIError(None, None, ConnectionResetError("the database restarts"))
        return await real(*arguments, **named)

    return store


def succeeded(lease: Lease) -> Ending:
    event = RunFinishedEvent(thread_id=str(lease.id), run_id=str(lease.id))
    return Ending(RunStatus.SUCCEEDED, event_json(event), "RUN_FINISHED", output={"a": 1})


async def nobody_wakes(queue: str) -> None:
    """No worker listens here."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def resources(
    services: Services, services_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Resources]:
    async with open_resources(
        settings_for(services, services_dir, blobs=tmp_path_factory.mktemp("blobs")),
        database_url=services.database_url,
        redis_url=services.redis_url,
        wake=nobody_wakes,
        owner="local:tests",
    ) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _nobody_else_claims(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that other tests left open in this process takes up no run of these ones."""
    for name in ("claim_runs", "claim_cancelled"):
        monkeypatch.setattr(executor_module, name, _for_local_owners(getattr(executor_module, name)))


def _for_local_owners(real: Any) -> Any:
    async def claimed(database: Database, *, owner: str, **rest: Any) -> list[Any]:
        return await real(database, owner=owner, **rest) if owner.startswith(f"{LOCAL}:") else []

    return claimed


@pytest.fixture
def database(resources: Resources) -> Database:
    return resources.database


@pytest.fixture
def make(resources: Resources) -> Factory:
    return Factory(resources)


@pytest_asyncio.fixture(loop_scope="session")
async def member(make: Factory) -> Member:
    return await make.member()


@pytest.fixture
def tenant(member: Member) -> Tenant:
    return member.tenant


@pytest_asyncio.fixture(loop_scope="session")
async def gate(make: Factory, member: Member) -> AsyncIterator[Gate]:
    gate = await make.gate(member)
    yield gate
    gate.opened.set()


def checkpoints(database: Database, log: EventLog) -> Any:
    """The saver; its module imports LangGraph."""
    module = import_module("app.services.runs.checkpoints")
    return module.RunCheckpoints(database, log.logs.__getitem__)


@dataclass(slots=True)
class Bench:
    """Makes processes (executors) and runs by hand, and looks at what is stored."""

    resources: Resources
    member: Member
    agent: UUID | None = None
    version: UUID | None = None

    @property
    def tenant(self) -> Tenant:
        return self.member.tenant

    def executor(self, owner: str, **changes: Any) -> Executor:
        """An executor as another process would have: nothing but the database is shared."""
        database = self.resources.database
        log = EventLog(database, Watch())
        fresh: dict[str, Any] = {
            **{"tasks": {}, "claimed": set(), "cancelled": set(), "listen_url": None},
            **{"queue_news": asyncio.Event(), "command_news": asyncio.Event()},
        }
        given = {"factory": AgentFactory(checkpointer=lambda: checkpoints(database, log))} | changes
        ports = {name: given.pop(name) for name in Outfit.__dataclass_fields__ if name in given}
        outfit = replace(self.resources.executor.outfit, **ports)
        return replace(self.resources.executor, owner=owner, log=log, outfit=outfit, **fresh | given)

    def agents(self) -> AgentService:
        resources = self.resources
        return AgentService(
            database=resources.database,
            tenant=self.tenant,
            principal=self.member.user_id,
            compiler=resources.compiler,
            models=resources.models(self.tenant),
            tools=resources.tools(self.tenant),
        )

    def runs(self, executor: Executor) -> RunService:
        """The service of the process that has `executor`."""
        database = self.resources.database
        streams = RunStreams(database, executor.log.watch)
        return RunService(database, self.tenant, self.agents(), executor, streams)

    async def start(
        self,
        executor: Executor,
        graph: dict[str, Any] = HELLO_GRAPH,
        *,
        name: str = "Ada",
        mode: RunMode = RunMode.STREAM,
    ) -> CreatedRun:
        agent = await self.agents().create("Test", slug=f"a{new_id().hex}", graph=graph)
        return await self.runs(executor).start(
            agent.slug, RunRequest(input={"name": name}, mode=mode, version="draft")
        )

    async def planted(
        self, *, owner: str = "local:gone", lease_s: float = 30, run_id: UUID | None = None
    ) -> Lease:
        """A running run that no process works on, leased to `owner`."""
        org, project, run_id = self.tenant.org_id, self.tenant.project, run_id or new_id()
        async with self.resources.database.unit_of_work(self.tenant) as session:
            if self.agent is None:
                self.agent, self.version = new_id(), new_id()
                session.add(
                    Agent(org_id=org, id=self.agent, project_id=project, slug="x", name="X", draft={})
                )
                await session.flush()
                version = AgentVersion(org_id=org, id=self.version, agent_id=self.agent, graph={})
                version.content_hash = "none"
                session.add(version)
                await session.flush()
            session.add(
                AgentRun(
                    org_id=org,
                    id=run_id,
                    project_id=project,
                    agent_id=self.agent,
                    version_id=self.version,
                    mode=RunMode.STREAM,
                    status=RunStatus.RUNNING,
                    input={},
                    lease_owner=owner,
                    lease_until=func.now() + text(f"interval '{lease_s} seconds'"),
                    fence=1,
                )
            )
        return Lease(org, run_id, 1)

    async def run(self, run_id: UUID) -> AgentRun:
        async with self.resources.database.unit_of_work(self.tenant) as session:
            return (await session.execute(select(AgentRun).where(AgentRun.id == run_id))).scalar_one()

    async def events(self, run_id: UUID) -> list[LoggedEvent]:
        """What is stored of the run, straight from the table."""
        e = AgentRunEvent
        text_of_event = cast(e.event, Text)
        statement = select(e.run_id, e.seq, e.ts, e.node_path, e.type, text_of_event)
        statement = statement.where(e.run_id == run_id)
        async with self.resources.database.unit_of_work(self.tenant) as session:
            rows = await session.execute(statement.order_by(e.seq))
            return [LoggedEvent(*row) for row in rows]

    async def fence_off(self, lease: Lease) -> None:
        """Somebody else takes the run over."""
        statement = text("UPDATE agent_runs SET fence = fence + 1 WHERE id = :id")
        async with self.resources.database.unit_of_work(self.tenant) as session:
            await session.execute(statement, {"id": lease.id})


@pytest.fixture
def bench(resources: Resources, member: Member) -> Bench:
    return Bench(resources, member)


@pytest.fixture
def log(database: Database) -> EventLog:
    return EventLog(database, Watch())


@pytest.fixture
def run_log(log: EventLog) -> Callable[[Lease], RunLog]:
    return lambda lease: RunLog(log, lease)


@pytest_asyncio.fixture(loop_scope="session")
async def make_other(make: Factory) -> Tenant:
    """Another organization."""
    return (await make.member()).tenant
