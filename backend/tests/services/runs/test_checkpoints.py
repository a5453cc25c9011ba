"""The checkpoint saver: LangGraph's own conformance suite, and what is ours in it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
import pytest_asyncio
from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.conformance import checkpointer_test, validate
from sqlalchemy import func, select

from app.db.postgres.models.agents import AgentRunCheckpoint
from app.services.runs.checkpoints import RunCheckpoints
from app.services.runs.event_log import EventLog
from app.services.runs.run_log import FencedOff, RunLog
from tests.services.runs.conftest import Bench

pytestmark = pytest.mark.asyncio(loop_scope="session")


class Planting(RunCheckpoints):
    """The suite invents threads: here each becomes a run that is leased to us."""

    def __init__(self, bench: Bench, log: EventLog) -> None:
        self.bench, self.log = bench, log
        self.runs: dict[str, RunLog] = {}
        super().__init__(bench.resources.database, self.runs.__getitem__, journalled=False)

    async def plant(self, thread_id: str) -> None:
        if thread_id not in self.runs:
            self.runs[thread_id] = RunLog(self.log, await self.bench.planted())

    async def aput(self, config: RunnableConfig, *rest: Any) -> RunnableConfig:
        await self.plant(config["configurable"]["thread_id"])
        return await super().aput(config, *rest)

    async def aget_tuple(self, config: RunnableConfig) -> Any:
        await self.plant(config["configurable"]["thread_id"])
        return await super().aget_tuple(config)

    async def alist(self, config: RunnableConfig | None, **rest: Any) -> AsyncIterator[Any]:
        if config is not None:
            await self.plant(config["configurable"]["thread_id"])
        async for found in super().alist(config, **rest):
            yield found

    async def adelete_thread(self, thread_id: str) -> None:
        await self.plant(thread_id)
        await super().adelete_thread(thread_id)

    async def acopy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        await self.plant(source_thread_id)
        await self.plant(target_thread_id)
        await super().acopy_thread(source_thread_id, target_thread_id)

    async def aprune(self, thread_ids: Sequence[str], **rest: Any) -> None:
        for thread_id in thread_ids:
            await self.plant(thread_id)
        await super().aprune(thread_ids, **rest)


@pytest_asyncio.fixture(loop_scope="session")
async def log(log: EventLog) -> AsyncIterator[EventLog]:
    """One that writes."""
    async with log.writer():
        yield log


class TestConformance:
    async def test_is_complete_but_for_deletion_by_run_ids(self, bench: Bench, log: EventLog) -> None:
        """Our threads are runs, whose deletion is that of the thread."""

        @checkpointer_test(name="RunCheckpoints")
        async def ours() -> AsyncIterator[RunCheckpoints]:
            yield Planting(bench, log)

        report = await validate(ours)
        failures = {name: result.failures for name, result in report.results.items() if result.failures}
        assert failures == {}
        passed = {name for name, result in report.results.items() if result.passed}
        assert passed == {
            *("put", "put_writes", "get_tuple", "list", "delete_thread", "copy_thread", "prune")
        }


def checkpoint(number: int, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "v": 1,
        "id": f"{number:032}",
        "ts": "2026-01-01T00:00:00Z",
        "channel_values": values,
        "channel_versions": dict.fromkeys(values, number),
        "versions_seen": {},
        "updated_channels": None,
    }


class TestChannels:
    async def test_keep_only_what_was_added(self, bench: Bench, log: EventLog) -> None:
        saver = Planting(bench, log)
        config: RunnableConfig = {"configurable": {"thread_id": "t"}}
        outputs: dict[str, Any] = {}
        sizes = []
        for number in range(1, 9):
            outputs = {**outputs, f"node{number}": {"text": "x" * 1000}}
            config = await saver.aput(
                config, checkpoint(number, {"outputs": outputs}), {"step": number}, {"outputs": number}
            )
            sizes.append(len(saver.runs["t"].pending.checkpoints[-1].channels))
        assert max(sizes) < 1200
        found = await saver.aget_tuple({"configurable": {"thread_id": "t"}})
        assert found.checkpoint["channel_values"] == {"outputs": outputs}


class TestFence:
    async def test_keeps_out_what_a_late_process_puts(self, bench: Bench, log: EventLog) -> None:
        saver = Planting(bench, log)
        config: RunnableConfig = {"configurable": {"thread_id": "t"}}
        await saver.plant("t")
        run = saver.runs["t"]
        await bench.fence_off(run.lease)
        await saver.aput(config, checkpoint(1, {"a": 1}), {}, {"a": 1})
        with pytest.raises(FencedOff):
            await run.settled()
        count = select(func.count()).where(AgentRunCheckpoint.run_id == run.lease.id)
        async with bench.resources.database.unit_of_work(bench.tenant) as session:
            assert (await session.execute(count)).scalar_one() == 0
