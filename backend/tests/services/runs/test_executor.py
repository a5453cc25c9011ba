"""The executor: every run ends, once, whatever happens to it or to its process."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from time import monotonic
from typing import Any
from uuid import UUID

import pytest

from app.agent.core.http import Http
from app.agent.core.interfaces import (
    Capability,
    ChatEvent,
    ChatRequest,
    Finished,
    ModelError,
    Usage,
)
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.ports import RunResult
from app.core.errors import Unavailable
from app.db.postgres.models.agents import AgentRun, RunMode, RunStatus
from app.db.session import Tenant
from app.services.runs import event_log
from app.services.runs import executor as executor_module
from app.services.runs.executor import Executor
from app.services.runs.run_claims import claim_runs
from tests.factories import Gate
from tests.graphs import asking_graph
from tests.services.runs.conftest import Bench, failing

pytestmark = pytest.mark.asyncio(loop_scope="session")
TERMINAL = ("RUN_FINISHED", "RUN_ERROR")


async def ended(bench: Bench, run_id: UUID, *, within_s: float = 10) -> AgentRun:
    async with asyncio.timeout(within_s):
        while True:
            row = await bench.run(run_id)
            if row.finished_at:
                return row
            await asyncio.sleep(0.05)


async def terminal_events(bench: Bench, run_id: UUID) -> list[dict[str, Any]]:
    return [event.event for event in await bench.events(run_id) if event.type in TERMINAL]


@pytest.fixture
def executor(bench: Bench) -> Executor:
    return bench.executor("local:one", lease_s=3, sweep_interval_s=0.2, grace_s=0.2)


class TestRun:
    async def test_ends_with_output_and_one_terminal_event(self, bench: Bench, executor: Executor) -> None:
        async with executor.running():
            row = await ended(bench, (await bench.start(executor)).id)
        assert (row.status, row.output) == (RunStatus.SUCCEEDED, {"text": "Hello, Ada!"})
        events = await bench.events(row.id)
        assert (events[0].type, events[-1].type) == ("RUN_STARTED", "RUN_FINISHED")
        assert [event.seq for event in events] == list(range(1, row.last_seq + 1))
        assert len(await terminal_events(bench, row.id)) == 1

    async def test_goes_on_when_nobody_reads(self, bench: Bench, executor: Executor, gate: Gate) -> None:
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            reading = asyncio.ensure_future(anext(bench.runs(executor).streams.follow(bench.tenant, run.id)))
            await gate.entered.wait()
            reading.cancel()
            gate.opened.set()
            assert (await ended(bench, run.id)).output == {"text": "Wait is over"}

    async def test_that_takes_too_long_fails(self, bench: Bench, gate: Gate) -> None:
        executor = bench.executor("local:slow", timeout_s=0.5)
        async with executor.running():
            row = await ended(bench, (await bench.start(executor, asking_graph(gate.slug))).id)
        assert row.status is RunStatus.FAILED
        assert row.error
        assert row.error["code"] == "timeout"
        (event,) = await terminal_events(bench, row.id)
        assert event["code"] == "timeout"

    async def test_that_breaks_fails_with_its_reason(
        self, bench: Bench, executor: Executor, gate: Gate
    ) -> None:
        bench.resources.providers[gate.slug] = lambda _: Refusing()
        async with executor.running():
            row = await ended(bench, (await bench.start(executor, asking_graph(gate.slug))).id)
        assert row.status is RunStatus.FAILED
        assert row.error
        assert row.error["code"] == "auth"
        (event,) = await terminal_events(bench, row.id)
        assert (event["type"], event["code"]) == ("RUN_ERROR", "auth")

    async def test_that_cannot_be_given_what_it_needs_fails(self, bench: Bench) -> None:
        def unmade(_: Tenant) -> Http:
            raise RuntimeError("no way out")

        executor = bench.executor("local:poor", http=unmade, claims=False)
        async with executor.running():
            run = await bench.start(executor)
            assert await executor.finished(run.id, timeout_s=10)
        row = await bench.run(run.id)
        assert row.status is RunStatus.FAILED
        assert row.error
        assert row.error["code"] == "internal_error"

    async def test_that_returns_without_a_terminal_event_fails(
        self, bench: Bench, executor: Executor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def returns(*_: Any, **__: Any) -> RunResult:
            return RunResult({}, Usage(), {})

        monkeypatch.setattr(ExecutableAgent, "run", returns)
        async with executor.running():
            run = await bench.start(executor)
            assert await executor.finished(run.id, timeout_s=10)
        assert (await bench.run(run.id)).status is RunStatus.FAILED

    async def test_ends_as_it_ended_though_the_database_is_away_just_then(
        self, bench: Bench, executor: Executor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.runs.event_log.store", failing(3))
        async with executor.running():
            row = await ended(bench, (await bench.start(executor)).id)
        assert row.status is RunStatus.SUCCEEDED


@dataclass(frozen=True, slots=True)
class Refusing:
    """A chat model whose provider does not know us."""

    name: str = "refusing"
    capabilities: frozenset[Capability] = frozenset()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ChatEvent]:
        raise ModelError("auth", "the provider refused the key")
        yield Finished()


class TestCancel:
    async def test_ends_the_run_within_five_seconds(
        self, bench: Bench, executor: Executor, gate: Gate
    ) -> None:
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            await gate.entered.wait()
            await bench.runs(executor).cancel(run.id)
            row = await ended(bench, run.id, within_s=5)
        assert row.status is RunStatus.CANCELLED
        assert [event["code"] for event in await terminal_events(bench, run.id)] == ["cancelled"]

    async def test_asked_of_another_process_ends_it_within_five_seconds(
        self, bench: Bench, executor: Executor, gate: Gate
    ) -> None:
        other = bench.executor("local:two")
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            await gate.entered.wait()
            await bench.runs(other).cancel(run.id)
            assert (await ended(bench, run.id, within_s=5)).status is RunStatus.CANCELLED

    async def test_of_an_ended_run_changes_nothing(self, bench: Bench, executor: Executor) -> None:
        async with executor.running():
            run = await bench.start(executor)
            before = await ended(bench, run.id)
            after = await bench.runs(executor).cancel(run.id)
        assert (after.status, after.finished_at, after.last_seq) == (
            RunStatus.SUCCEEDED,
            before.finished_at,
            before.last_seq,
        )

    async def test_in_the_last_write_does_not_cut_it_off(
        self, bench: Bench, executor: Executor, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = event_log.store

        async def cancel_all(database: Any, batch: Any, **named: Any) -> Any:
            if any(portion.pending.ending for portion, _ in batch):
                for task in executor.tasks.values():
                    task.cancel()
            return await real(database, batch, **named)

        monkeypatch.setattr("app.services.runs.event_log.store", cancel_all)
        async with executor.running():
            run = await bench.start(executor)
            assert (await ended(bench, run.id, within_s=5)).status is RunStatus.SUCCEEDED

    async def test_of_a_run_that_waits_ends_it_before_it_begins(
        self, bench: Bench, executor: Executor
    ) -> None:
        run = await bench.start(executor, mode=RunMode.BACKGROUND)
        await bench.runs(executor).cancel(run.id)
        async with executor.running():
            row = await ended(bench, run.id, within_s=5)
        assert row.status is RunStatus.CANCELLED
        assert [event.type for event in await bench.events(run.id)] == ["RUN_ERROR"]

    async def test_of_a_run_that_waits_needs_nobody_who_takes_up_runs(self, bench: Bench) -> None:
        executor = bench.executor("local:reserved", claims=False)
        async with executor.running():
            run = await bench.start(executor, mode=RunMode.BACKGROUND)
            await bench.runs(executor).cancel(run.id)
            assert (await ended(bench, run.id, within_s=5)).status is RunStatus.CANCELLED

    async def test_of_a_run_that_waits_needs_no_room(self, bench: Bench, gate: Gate) -> None:
        executor = bench.executor("local:full", claim_concurrency=1, grace_s=0)
        await bench.start(executor, asking_graph(gate.slug), mode=RunMode.BACKGROUND)
        async with executor.running():
            await gate.entered.wait()
            waiting = await bench.start(executor, mode=RunMode.BACKGROUND)
            await bench.runs(executor).cancel(waiting.id)
            assert (await ended(bench, waiting.id, within_s=5)).status is RunStatus.CANCELLED


class TestOutcome:
    async def test_is_what_is_stored(self, bench: Bench, executor: Executor) -> None:
        async with executor.running():
            run = await bench.start(executor, name="A\x00da")
            told = await bench.runs(executor).outcome(run, timeout_s=10)
        assert told.output == (await bench.run(run.id)).output == {"text": "Hello, A\ufffdda!"}


class TestBackground:
    async def test_is_queued_until_somebody_has_room(self, bench: Bench, executor: Executor) -> None:
        begun = await bench.start(executor, mode=RunMode.BACKGROUND)
        run = await bench.run(begun.id)
        assert (run.status, run.lease_owner) == (RunStatus.QUEUED, None)
        async with executor.running():
            row = await ended(bench, run.id)
        assert (row.status, row.output, row.recoveries) == (RunStatus.SUCCEEDED, {"text": "Hello, Ada!"}, 0)
        assert [event.seq for event in await bench.events(run.id)] == list(range(1, row.last_seq + 1))

    async def test_is_taken_once_by_many(self, bench: Bench) -> None:
        executors = [bench.executor(f"local:{n}", lease_s=3, sweep_interval_s=0.1) for n in range(3)]
        runs = [await bench.start(executors[0], mode=RunMode.BACKGROUND) for _ in range(5)]
        async with executors[0].running(), executors[1].running(), executors[2].running():
            for run in runs:
                await ended(bench, run.id)
        for run in runs:
            assert [event.type for event in await bench.events(run.id)].count("RUN_STARTED") == 1

    async def test_takes_no_more_than_its_share(self, bench: Bench, gate: Gate) -> None:
        executor = bench.executor("local:few", claim_concurrency=2, grace_s=0)
        for _ in range(4):
            await bench.start(executor, asking_graph(gate.slug), mode=RunMode.BACKGROUND)
        async with executor.running():
            await gate.entered.wait()
            await asyncio.sleep(1.2)
            assert len(executor.tasks) == 2


class TestLostLease:
    async def test_stops_the_run_here(self, bench: Bench, gate: Gate) -> None:
        executor = bench.executor("local:loser", lease_s=0.6, claims=False)
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            await gate.entered.wait()
            async with bench.resources.database.unit_of_work(bench.tenant) as session:
                row = await session.get_one(AgentRun, (bench.tenant.org_id, run.id))
                row.fence, row.lease_owner = 2, "local:winner"
            async with asyncio.timeout(5):
                while executor.tasks:
                    await asyncio.sleep(0.05)
        assert (await bench.run(run.id)).finished_at is None
        assert await terminal_events(bench, run.id) == []


class TestCapacity:
    async def test_that_is_used_up_is_said_with_a_time_to_come_back(self, bench: Bench, gate: Gate) -> None:
        executor = bench.executor("local:small", concurrency=1, grace_s=0, claims=False)
        async with executor.running():
            await bench.start(executor, asking_graph(gate.slug))
            with pytest.raises(Unavailable, match="ORRERY_RUN_CONCURRENCY") as raised:
                await bench.start(executor)
        assert raised.value.status == 503
        assert raised.value.retry_after_s

    async def test_comes_back_when_a_run_ends(self, bench: Bench) -> None:
        executor = bench.executor("local:small", concurrency=1, claims=False)
        async with executor.running():
            for _ in range(3):
                await ended(bench, (await bench.start(executor)).id)
                await asyncio.gather(*executor.tasks.values())


class TestShutdown:
    async def test_lets_runs_end_within_the_grace(self, bench: Bench, gate: Gate) -> None:
        executor = bench.executor("local:kind", grace_s=10)
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            await gate.entered.wait()
            asyncio.get_running_loop().call_later(0.3, gate.opened.set)
        assert (await bench.run(run.id)).status is RunStatus.SUCCEEDED

    async def test_hands_on_what_takes_longer(self, bench: Bench, executor: Executor, gate: Gate) -> None:
        began = monotonic()
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            await gate.entered.wait()
        row = await bench.run(run.id)
        assert (row.status, row.finished_at) == (RunStatus.QUEUED, None)
        assert (row.lease_owner, row.lease_until, row.recoveries) == (None, None, 0)
        assert await terminal_events(bench, run.id) == []
        assert monotonic() - began < 10

    async def test_loses_nothing_that_was_said(self, bench: Bench, executor: Executor, gate: Gate) -> None:
        async with executor.running():
            run = await bench.start(executor, asking_graph(gate.slug))
            await gate.entered.wait()
        deltas = [e.event["delta"] for e in await bench.events(run.id) if e.type == "TEXT_MESSAGE_CONTENT"]
        assert deltas == ["Wait"]

    async def test_gives_back_what_was_claimed_and_never_told(self, bench: Bench) -> None:
        """The claim was committed, and its answer lost on the way."""
        executor = bench.executor("local:deaf", claims=False)
        run = await bench.start(executor, mode=RunMode.BACKGROUND)
        async with executor.running():
            await claim_runs(
                bench.resources.database, owner=executor.owner, limit=1000, lease_s=30, executing=[]
            )
            assert (await bench.run(run.id)).lease_owner == executor.owner
        row = await bench.run(run.id)
        assert (row.status, row.lease_owner, row.lease_until) == (RunStatus.QUEUED, None, None)
        assert row.recoveries == 0

    async def test_amid_a_claim_leaves_no_lease(
        self, bench: Bench, gate: Gate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        claimed, claim = asyncio.Event(), executor_module.claim_runs

        async def slow(*given: Any, **named: Any) -> Any:
            runs = await claim(*given, **named)
            if runs:
                claimed.set()
                await asyncio.sleep(0.3)
            return runs

        monkeypatch.setattr(executor_module, "claim_runs", slow)
        executor = bench.executor("local:hasty", grace_s=0)
        run = await bench.start(executor, asking_graph(gate.slug), mode=RunMode.BACKGROUND)
        async with executor.running():
            await claimed.wait()
        row = await bench.run(run.id)
        assert (row.status, row.lease_owner, row.recoveries) == (RunStatus.QUEUED, None, 0)
