"""The use cases of agents, on a real database: what is stored when a draft is published or run."""

from __future__ import annotations

import asyncio
from collections import Counter
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import func, select, update

from app.agent.graph.issues import InvalidGraph
from app.agent.graph.ports import InvalidInput
from app.core.constants import INGEST_QUEUE
from app.core.errors import Conflict, NotFound, PreconditionFailed, Unavailable
from app.core.paging import PageRequest
from app.db.postgres.models.agents import Agent, AgentRun, AgentRunEvent, AgentVersion, RunMode, RunStatus
from app.db.postgres.models.jobs import JobKind, WorkItem, WorkState
from app.db.postgres.repositories.agents import AgentVersions, Runs
from app.db.postgres.repositories.rag import Collections
from app.services.agent_service import AgentService
from app.services.collection_service import CollectionService
from app.services.job_service import JobService
from app.services.run_service import CreatedRun, RunRequest, RunService
from tests.api import conftest as shared
from tests.factories import Factory, Member
from tests.fixtures import Running
from tests.graphs import HELLO_GRAPH, asking_graph, greeting_graph

pytestmark = pytest.mark.asyncio(loop_scope="session")

settings, server, make, member = shared.settings, shared.server, shared.make, shared.member


@pytest_asyncio.fixture(loop_scope="session")
async def agents(server: Running, member: Member) -> AgentService:
    return server.resources.agents(member.tenant, member.user_id)


@pytest_asyncio.fixture(loop_scope="session")
async def runs(server: Running, member: Member) -> RunService:
    return server.resources.runs(member.tenant, member.user_id)


def greeting(*, version: str | int = "live") -> RunRequest:
    return RunRequest(input={"name": "Ada"}, mode=RunMode.WAIT, version=version)


async def new_collection(server: Running, member: Member, slug: str) -> str:
    """The id of a fresh collection."""
    async with server.resources.database.unit_of_work(member.tenant) as session:
        collections = CollectionService(session, member.tenant, server.resources.embedder)
        return str((await collections.create("Shelf", slug=slug)).collection.id)


class TestPublish:
    async def test_resolves_collections_to_ids(
        self, server: Running, member: Member, agents: AgentService
    ) -> None:
        collection = await new_collection(server, member, "handbook")
        await agents.create("Asker", graph=asking_graph("default-chat", collection="handbook"))
        version = await agents.publish("asker")
        assert version.bindings["collections"] == {"kb": collection}

    async def test_keeps_its_collection_when_another_takes_the_slug(
        self, server: Running, member: Member, agents: AgentService
    ) -> None:
        old = await new_collection(server, member, "handbook")
        await agents.create("Asker", graph=asking_graph("default-chat", collection="handbook"))
        await agents.publish("asker")
        async with server.resources.database.unit_of_work(member.tenant) as session:
            (await Collections(session, member.tenant).find(old)).slug = "archive"
        await new_collection(server, member, "handbook")
        assert (await agents.version("asker", "1")).bindings["collections"] == {"kb": old}

    async def test_keeps_the_names_of_models(
        self, make: Factory, member: Member, agents: AgentService
    ) -> None:
        gate = await make.gate(member)
        await agents.create("Asker", graph=asking_graph(gate.slug))
        version = await agents.publish("asker")
        assert version.bindings["models"] == {"main": gate.slug}

    async def test_stores_the_draft_as_it_was(self, agents: AgentService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        version = await agents.publish("greeter")
        await agents.update("greeter", {"graph": {}})
        assert version.graph == HELLO_GRAPH

    async def test_of_an_invalid_draft_carries_the_report(self, agents: AgentService) -> None:
        await agents.create("Asker", graph=asking_graph("oracle", collection="nowhere"))
        with pytest.raises(InvalidGraph) as refused:
            await agents.publish("asker")
        assert {"/bindings/models/main", "/bindings/collections/kb"} <= {
            error.pointer for error in refused.value.errors
        }
        assert (await agents.get("asker")).live_version is None

    async def test_at_the_same_time_makes_one_version(self, agents: AgentService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        released = await asyncio.gather(*(agents.release("greeter") for _ in range(5)))
        assert {release.version.version for release in released} == {1}
        assert [release.fresh for release in released].count(True) == 1

    async def test_with_other_things_bound_makes_a_version(
        self, server: Running, member: Member, agents: AgentService
    ) -> None:
        old = await new_collection(server, member, "handbook")
        await agents.create("Asker", graph=asking_graph("default-chat", collection="handbook"))
        await agents.publish("asker")
        async with server.resources.database.unit_of_work(member.tenant) as session:
            (await Collections(session, member.tenant).find(old)).slug = "archive"
        await new_collection(server, member, "handbook")
        assert (await agents.publish("asker")).version == 2

    async def test_at_the_same_time_as_rollbacks_gives_each_a_number(self, agents: AgentService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        await agents.publish("greeter")
        await agents.update("greeter", {"graph": greeting_graph("Bye!")})
        await agents.publish("greeter")
        released = await asyncio.gather(*(agents.rollback("greeter", 1 + n % 2) for n in range(6)))
        made = [release.version.version for release in released if release.fresh]
        assert sorted(made) == list(range(3, 3 + len(made)))
        assert (await agents.get("greeter")).live_version == max(made)


class TestDraftRun:
    async def test_reuses_the_snapshot_of_an_equal_draft(
        self, agents: AgentService, runs: RunService
    ) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        first = await runs.start("greeter", greeting(version="draft"))
        await agents.update("greeter", {"graph": HELLO_GRAPH | {"layout": {"greet": {"x": 4, "y": 2}}}})
        second = await runs.start("greeter", greeting(version="draft"))
        assert first.version_id == second.version_id

    async def test_makes_a_snapshot_of_another_draft(self, agents: AgentService, runs: RunService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        first = await runs.start("greeter", greeting(version="draft"))
        await agents.update("greeter", {"graph": HELLO_GRAPH | {"interface": None}})
        second = await runs.start("greeter", greeting(version="draft"))
        assert first.version_id != second.version_id

    async def test_at_the_same_time_shares_one_snapshot(self, agents: AgentService, runs: RunService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        begun = await asyncio.gather(*(runs.start("greeter", greeting(version="draft")) for _ in range(5)))
        assert len({run.version_id for run in begun}) == 1

    async def test_makes_no_numbered_version(self, agents: AgentService, runs: RunService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        await runs.start("greeter", greeting(version="draft"))
        assert (await agents.versions("greeter", PageRequest())).items == []
        assert (await agents.publish("greeter")).version == 1


class TestStartRun:
    async def test_pins_the_version(self, agents: AgentService, runs: RunService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        version = await agents.publish("greeter")
        run = await runs.start("greeter", greeting())
        await agents.update("greeter", {"graph": greeting_graph("Bye!")})
        await agents.publish("greeter")
        assert (await runs.wait(run.id, timeout_s=60)).version_id == version.id

    async def test_ends_with_a_journal_of_usage(
        self, make: Factory, member: Member, agents: AgentService, runs: RunService
    ) -> None:
        gate = await make.gate(member)
        gate.opened.set()
        await agents.create("Asker", graph=asking_graph(gate.slug))
        await agents.publish("asker")
        run = await runs.start("asker", greeting())
        ended = await runs.wait(run.id, timeout_s=60)
        assert (ended.status, ended.output) == (RunStatus.SUCCEEDED, {"text": "Wait is over"})
        assert [step.node_path for step in (await runs.steps(run.id, PageRequest())).items] == ["ask"]

    async def test_with_wrong_input_stores_nothing(
        self, server: Running, member: Member, agents: AgentService, runs: RunService
    ) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        await agents.publish("greeter")
        with pytest.raises(InvalidInput) as refused:
            await runs.start("greeter", RunRequest(input={"name": 7}, mode=RunMode.WAIT))
        assert [error.pointer for error in refused.value.errors] == ["/body/input/name"]
        async with server.resources.database.unit_of_work(member.tenant) as session:
            assert (await session.execute(select(AgentRun.id))).all() == []

    async def test_of_an_unpublished_agent_is_a_conflict(
        self, agents: AgentService, runs: RunService
    ) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        with pytest.raises(Conflict, match="'greeter' has no published version"):
            await runs.start("greeter", greeting())

    async def test_of_an_unknown_version_is_not_found(self, agents: AgentService, runs: RunService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        await agents.publish("greeter")
        with pytest.raises(NotFound, match="no version '9'"):
            await runs.start("greeter", greeting(version=9))

    async def test_where_too_many_run_asks_to_come_back(
        self, make: Factory, member: Member, agents: AgentService, runs: RunService
    ) -> None:
        gate = await make.gate(member)
        await agents.create("Asker", graph=asking_graph(gate.slug))
        await agents.publish("asker")
        run = await runs.start("asker", greeting())
        usual, runs.executor.concurrency = runs.executor.concurrency, 1
        try:
            with pytest.raises(Unavailable) as refused:
                await runs.start("asker", greeting())
        finally:
            runs.executor.concurrency = usual
            gate.opened.set()
        assert refused.value.retry_after_s == 1
        assert (await runs.wait(run.id, timeout_s=60)).status == RunStatus.SUCCEEDED


class TestUpdate:
    async def test_at_the_same_time_lets_one_revision_win(self, agents: AgentService) -> None:
        await agents.create("Greeter", graph=HELLO_GRAPH)
        outcomes = await asyncio.gather(
            *(agents.update("greeter", {"name": f"N{n}"}, revisions={1}) for n in range(5)),
            return_exceptions=True,
        )
        assert sum(isinstance(outcome, PreconditionFailed) for outcome in outcomes) == 4
        assert (await agents.get("greeter")).revision == 2


async def left(server: Running, member: Member) -> Counter[str]:
    """How many rows there are of the member's agents, in each table that has some."""
    found: Counter[str] = Counter()
    async with server.resources.database.unit_of_work(member.tenant) as session:
        for model in (Agent, AgentVersion, AgentRun, AgentRunEvent):
            count = await session.execute(select(func.count()).select_from(model))
            found[model.__tablename__] = count.scalar_one()
    return +found


class TestDelete:
    async def greeted(self, agents: AgentService, runs: RunService, *, times: int) -> None:
        """An agent `greeter` that has run."""
        await agents.create("Greeter", graph=HELLO_GRAPH)
        await agents.publish("greeter")
        for _ in range(times):
            run = await runs.start("greeter", greeting())
            await runs.wait(run.id, timeout_s=60)

    async def test_hides_everything_at_once(self, agents: AgentService, runs: RunService) -> None:
        await self.greeted(agents, runs, times=1)
        (run,) = (await runs.page(PageRequest())).items
        await agents.delete("greeter")
        assert (await agents.page(PageRequest())).items == []
        assert (await runs.page(PageRequest())).items == []
        for lost in (agents.get("greeter"), runs.get(run.id), runs.steps(run.id, PageRequest())):
            with pytest.raises(NotFound):
                await lost
        with pytest.raises(NotFound):
            await runs.start("greeter", greeting())

    async def test_takes_versions_and_runs_with_it(
        self, server: Running, member: Member, agents: AgentService, runs: RunService
    ) -> None:
        await self.greeted(agents, runs, times=2)
        await agents.delete("greeter")
        await server.drain().run(INGEST_QUEUE)
        assert await left(server, member) == Counter()

    async def test_is_watched_as_a_job(
        self, server: Running, member: Member, agents: AgentService, runs: RunService
    ) -> None:
        await self.greeted(agents, runs, times=1)
        await agents.delete("greeter")
        await server.drain().run(INGEST_QUEUE)
        (job,) = (await JobService(server.resources.database, member.tenant).page(PageRequest())).items
        assert (job.job.kind, job.status) == (JobKind.ERASE_AGENT, WorkState.SUCCEEDED)

    async def test_goes_on_where_a_worker_died(
        self,
        server: Running,
        member: Member,
        agents: AgentService,
        monkeypatch: pytest.MonkeyPatch,
        runs: RunService,
    ) -> None:
        await self.greeted(agents, runs, times=3)
        await agents.delete("greeter")
        monkeypatch.setattr("app.services.erasure_service._AT_ONCE", 1)
        erase_of, calls = Runs.erase_of, 0

        async def dying(self: Runs, agent_id: UUID, *, limit: int) -> int:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise ConnectionError("the worker lost its database")
            return await erase_of(self, agent_id, limit=limit)

        monkeypatch.setattr(Runs, "erase_of", dying)
        await server.drain().run(INGEST_QUEUE)
        assert (await left(server, member))["agent_runs"] == 2
        async with server.resources.database.unit_of_work(member.tenant) as session:
            await session.execute(update(WorkItem).values(due_at=func.now()))
        await server.drain().run(INGEST_QUEUE)
        assert await left(server, member) == Counter()

    async def test_leaves_other_agents_alone(
        self, server: Running, member: Member, agents: AgentService, runs: RunService
    ) -> None:
        await self.greeted(agents, runs, times=1)
        await agents.create("Kept", graph=HELLO_GRAPH)
        await agents.publish("kept")
        await runs.wait((await runs.start("kept", greeting())).id, timeout_s=60)
        before = await left(server, member)
        await agents.delete("greeter")
        await server.drain().run(INGEST_QUEUE)
        assert await left(server, member) == Counter({table: count // 2 for table, count in before.items()})

    async def test_while_runs_start_ends_one_way_or_the_other(
        self, agents: AgentService, runs: RunService
    ) -> None:
        """Either the agent is gone and nothing runs, or its run keeps it."""
        for _ in range(5):
            await agents.create("Greeter", graph=HELLO_GRAPH)
            await agents.publish("greeter")
            *started, deleted = await asyncio.gather(
                *(runs.start("greeter", greeting()) for _ in range(4)),
                agents.delete("greeter"),
                return_exceptions=True,
            )
            begun = [run for run in started if isinstance(run, CreatedRun)]
            refused = [error for error in started if isinstance(error, NotFound)]
            assert len(begun) + len(refused) == 4
            assert deleted is None or isinstance(deleted, Conflict)
            if deleted is not None:
                for run in begun:
                    await runs.wait(run.id, timeout_s=60)
                await agents.delete("greeter")


class TestRoom:
    async def test_is_kept_while_runs_are_being_created(
        self, agents: AgentService, make: Factory, member: Member, runs: RunService
    ) -> None:
        gate = await make.gate(member)
        await agents.create("Asker", graph=asking_graph(gate.slug))
        await agents.publish("asker")
        busy = len(runs.executor.tasks)
        usual, runs.executor.concurrency = runs.executor.concurrency, busy + 2
        try:
            started = await asyncio.gather(
                *(runs.start("asker", greeting()) for _ in range(6)), return_exceptions=True
            )
        finally:
            runs.executor.concurrency = usual
            gate.opened.set()
        begun = [run for run in started if isinstance(run, CreatedRun)]
        assert len(begun) == 2
        assert sum(isinstance(error, Unavailable) for error in started) == 4
        for run in begun:
            await runs.wait(run.id, timeout_s=60)
        assert runs.executor.reservations == 0


class TestTenancy:
    async def test_another_organizations_service_finds_nothing(
        self, server: Running, make: Factory, agents: AgentService
    ) -> None:
        agent = await agents.create("Greeter", graph=HELLO_GRAPH)
        other = await make.member()
        theirs = server.resources.agents(other.tenant, other.user_id)
        with pytest.raises(NotFound):
            await theirs.get(str(agent.id))
        async with server.resources.database.unit_of_work(other.tenant) as session:
            assert await AgentVersions(session, other.tenant).newest_number(agent.id) == 0
