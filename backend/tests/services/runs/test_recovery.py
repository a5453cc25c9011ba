"""Runs whose process died go on in another one: nothing that is in the journal is done again."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from itertools import pairwise
from uuid import UUID

import pytest
import pytest_asyncio
from sqlalchemy import delete, update

from app.core.egress import Egress
from app.db.postgres.models.agents import AgentRun, AgentRunCheckpoint, AgentRunStep, RunStatus
from app.db.session import Tenant
from app.services.http_service import ProjectHttp
from app.services.runs.executor import Executor
from tests.core.peers import Peer, ok, peer, says, way_out
from tests.counting_model import Counting, counting_behind
from tests.factories import Factory, Gate
from tests.graphs import HELLO_GRAPH, asking_graph
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")
TERMINAL = ("RUN_FINISHED", "RUN_ERROR")
HUGE = {"id": 2**64, "debt": -(2**80), "each": [2**53 + 1, 2**63, 10**40]}


@pytest.fixture
def counting(bench: Bench, gate: Gate) -> Counting:
    return counting_behind(bench.resources, gate)


def two_calls(gate: str, counting: str) -> dict[str, object]:
    """First the model that counts, then text, then the one that waits."""
    prompt = [{"role": "user", "content": "{{ inputs.name }}"}]
    nodes = [
        {"id": "start", "type": "start"},
        {"id": "first", "type": "llm", "config": {"model": "quick", "prompt": prompt}},
        {"id": "between", "type": "template", "config": {"text": "{{ first.text }}, then"}},
        {"id": "second", "type": "llm", "config": {"model": "slow", "prompt": prompt}},
        {
            "id": "done",
            "type": "end",
            "config": {"output": {"text": "{{ second.text }}", "before": "{{ between.text }}"}},
        },
    ]
    path = ["start", "first", "between", "second", "done"]
    return HELLO_GRAPH | {
        "bindings": {"models": {"quick": counting, "slow": gate}},
        "nodes": nodes,
        "edges": [{"source": a, "target": b} for a, b in pairwise(path)],
    }


async def expire(bench: Bench, run_id: UUID) -> None:
    """As if the holder had been silent for longer than its lease."""
    async with bench.resources.database.unit_of_work(bench.tenant) as session:
        row = await session.get_one(AgentRun, (bench.tenant.org_id, run_id))
        assert row.lease_until
        row.lease_until = row.created_at


async def ended(bench: Bench, run_id: UUID) -> AgentRun:
    async with asyncio.timeout(15):
        while not (row := await bench.run(run_id)).finished_at:
            await asyncio.sleep(0.05)
    return row


@pytest.fixture
def frozen(bench: Bench) -> Executor:
    """A process that does not notice that its lease has run out."""
    return bench.executor("local:frozen", lease_s=600, claims=False)


@pytest.fixture
def other(bench: Bench) -> Executor:
    return bench.executor("local:other", lease_s=3, sweep_interval_s=0.2, grace_s=5)


class TestOrphan:
    async def test_goes_on_without_repeating_what_is_journalled(
        self, bench: Bench, frozen: Executor, other: Executor, gate: Gate, make: Factory, counting: Counting
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        async with frozen.running():
            run = await bench.start(frozen, two_calls(gate.slug, slug))
            await gate.entered.wait()
            await asyncio.sleep(0.2)
            before = await bench.events(run.id)
            await expire(bench, run.id)
            gate.entered.clear()
            async with other.running():
                await gate.entered.wait()
                gate.opened.set()
                row = await ended(bench, run.id)
                await asyncio.gather(*frozen.tasks.values())
        assert row.status is RunStatus.SUCCEEDED
        assert row.output == {"text": "Wait is over", "before": "call 1, then"}
        assert (len(counting.calls), row.fence) == (1, 2)
        assert row.usage
        assert row.usage["by_model"]["counting"] == {"input_tokens": 2, "output_tokens": 3}
        events = await bench.events(run.id)
        assert events[: len(before)] == before
        assert [event.seq for event in events] == list(range(1, row.last_seq + 1))
        kinds = [event.type for event in events]
        assert (kinds.count("RUN_STARTED"), sum(kind in TERMINAL for kind in kinds)) == (1, 1)
        names = [event.event.get("name") for event in events]
        assert names.count("run.continued") == 1
        assert names.count("message.discarded") == 1
        finished = [e.node_path for e in events if e.event.get("name") == "node.finished"]
        assert sorted(finished) == sorted(set(finished))

    async def test_whose_checkpoint_is_of_another_plan_goes_on_by_its_journal(
        self, bench: Bench, frozen: Executor, other: Executor, gate: Gate, make: Factory, counting: Counting
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        older = update(AgentRunCheckpoint).values(checkpoint_metadata={"plan": "of an older release"})
        async with frozen.running():
            run = await bench.start(frozen, two_calls(gate.slug, slug))
            await gate.entered.wait()
            await asyncio.sleep(0.2)
            async with bench.resources.database.unit_of_work(bench.tenant) as session:
                ours = older.where(AgentRunCheckpoint.run_id == run.id).returning(AgentRunCheckpoint.id)
                assert (await session.execute(ours)).all()
            await expire(bench, run.id)
            gate.opened.set()
            async with other.running():
                row = await ended(bench, run.id)
                await asyncio.gather(*frozen.tasks.values())
        assert (row.status, len(counting.calls)) == (RunStatus.SUCCEEDED, 1)
        assert row.output == {"text": "Wait is over", "before": "call 1, then"}

    async def test_counts_the_deaths_since_its_last_step(
        self, bench: Bench, frozen: Executor, other: Executor, gate: Gate
    ) -> None:
        async with frozen.running():
            run = await bench.start(frozen, asking_graph(gate.slug))
            await gate.entered.wait()
            await expire(bench, run.id)
            gate.entered.clear()
            async with other.running():
                await gate.entered.wait()
                died = (await bench.run(run.id)).recoveries
                gate.opened.set()
                row = await ended(bench, run.id)
                await asyncio.gather(*frozen.tasks.values())
        assert (died, row.recoveries) == (1, 0)

    async def test_that_kills_every_process_fails_in_the_end(self, bench: Bench, other: Executor) -> None:
        lease = await bench.planted(lease_s=-1)
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            row = await session.get_one(AgentRun, (bench.tenant.org_id, lease.id))
            row.recoveries = other.recoveries
        async with other.running():
            row = await ended(bench, lease.id)
        assert row.status is RunStatus.FAILED
        assert row.error
        assert row.error["code"] == "process_died"
        assert [event.type for event in await bench.events(lease.id)] == ["RUN_ERROR"]

    async def test_is_left_alone_while_its_process_lives(self, bench: Bench, other: Executor) -> None:
        lease = await bench.planted()
        await other.claim()
        row = await bench.run(lease.id)
        assert (row.fence, row.lease_owner) == (1, "local:gone")

    async def test_is_taken_by_one_of_many(self, bench: Bench) -> None:
        leases = [await bench.planted(lease_s=-1) for _ in range(5)]
        async with AsyncExitStack() as stack:
            for number in range(4):
                await stack.enter_async_context(bench.executor(f"local:{number}").running())
            rows = [await ended(bench, lease.id) for lease in leases]
        assert [row.fence for row in rows] == [2] * 5


class TestHandedOverRun:
    async def test_is_gone_on_with_and_counts_as_no_death(
        self, bench: Bench, other: Executor, gate: Gate, make: Factory, counting: Counting
    ) -> None:
        slug = await make.model(bench.member, provider=gate.slug, model="counting")
        stopping = bench.executor("local:stopping", grace_s=0.1)
        async with stopping.running():
            run = await bench.start(stopping, two_calls(gate.slug, slug))
            await gate.entered.wait()
        gate.opened.set()
        async with other.running():
            row = await ended(bench, run.id)
        assert (row.status, row.recoveries) == (RunStatus.SUCCEEDED, 0)
        assert len(counting.calls) == 1
        kinds = [event.type for event in await bench.events(run.id)]
        assert (kinds.count("RUN_STARTED"), sum(kind in TERMINAL for kind in kinds)) == (1, 1)


class TestHugeIntegers:
    """JSON has integers without end; msgpack, which checkpoints are written in, ends at 64 bits."""

    @pytest.fixture
    def stopping(self, bench: Bench, egress: Egress) -> Executor:
        return bench.executor("local:stopping", grace_s=0, claims=False, http=self.door(bench, egress))

    @pytest_asyncio.fixture(loop_scope="session")
    async def there(self) -> AsyncIterator[Peer]:
        answer = ok(json.dumps(HUGE).encode(), headers=["Content-Type: application/json"])
        async with peer(says(answer)) as there:
            yield there

    @pytest_asyncio.fixture(loop_scope="session")
    async def egress(self, there: Peer) -> AsyncIterator[Egress]:
        async with way_out(there.authority) as egress:
            yield egress

    def door(self, bench: Bench, egress: Egress) -> Callable[[Tenant], ProjectHttp]:
        return lambda tenant: ProjectHttp(egress, bench.resources.secrets(tenant), 2**20)

    @pytest.mark.parametrize("left", ["checkpoint", "journal"])
    async def test_of_an_answer_are_the_same_after_a_recovery(
        self, bench: Bench, stopping: Executor, other: Executor, gate: Gate, there: Peer, left: str
    ) -> None:
        async with stopping.running():
            run = await bench.start(stopping, self.graph(there.url, gate.slug))
            await gate.entered.wait()
        gone = AgentRunStep if left == "checkpoint" else AgentRunCheckpoint
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            await session.execute(delete(gone).where(gone.run_id == run.id))
        gate.opened.set()
        async with other.running():
            row = await ended(bench, run.id)
        assert (row.status, row.output) == (RunStatus.SUCCEEDED, {"text": "Wait is over", "sent": HUGE})
        assert len(there.requests) == 1

    def graph(self, url: str, gate: str) -> dict[str, object]:
        ask = {"model": "slow", "prompt": [{"role": "user", "content": "Well?"}]}
        end = {"output": {"text": "{{ ask.text }}", "sent": "{{ call.body }}"}}
        return HELLO_GRAPH | {
            "bindings": {"models": {"slow": gate}},
            "nodes": [
                {"id": "start", "type": "start"},
                {"id": "call", "type": "http", "config": {"url": url}},
                {"id": "ask", "type": "llm", "config": ask},
                {"id": "done", "type": "end", "config": end},
            ],
            "edges": [{"source": a, "target": b} for a, b in pairwise(("start", "call", "ask", "done"))],
        }
