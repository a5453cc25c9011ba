"""Effects of runs made of others: a resumed one has the keys of the first, a forked one its own."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any
from uuid import UUID

import pytest

from app.core.ids import new_id
from app.db.postgres.models.agents import AgentRun, RunMode, RunStatus
from app.services.descendant_service import DescendantService, Wanted
from app.services.run_service import RunRequest
from app.services.runs.executor import Executor
from tests.core.peers import in_turn, ok, peer, says, way_out
from tests.graphs import HELLO_GRAPH
from tests.services.runs.conftest import Bench
from tests.services.runs.test_http_runs import door
from tests.services.runs.test_recovery import ended

pytestmark = pytest.mark.asyncio(loop_scope="session")
BROKEN = ok(b"", status="500 Internal Server Error")


def two_posts(url: str) -> dict[str, Any]:
    posts = [
        {"id": name, "type": "http", "config": {"url": f"{url}{name}", "method": "POST"}}
        for name in ("first", "second")
    ]
    ids = ["start", "first", "second", "done"]
    return HELLO_GRAPH | {
        "interface": {},
        "nodes": [
            {"id": "start", "type": "start"},
            *posts,
            {"id": "done", "type": "end", "config": {"output": {"text": "{{ second.body }}"}}},
        ],
        "edges": [{"source": a, "target": b} for a, b in pairwise(ids)],
    }


async def failed(bench: Bench, executor: Executor, url: str) -> AgentRun:
    agent = await bench.agents().create("Test", slug=f"a{new_id().hex}", graph=two_posts(url))
    request = RunRequest(input={"name": "Ada"}, mode=RunMode.STREAM, version="draft")
    run = await bench.runs(executor).start(agent.slug, request)
    row = await ended(bench, run.id)
    assert row.status is RunStatus.FAILED
    return row


def service(bench: Bench, executor: Executor) -> DescendantService:
    return DescendantService(bench.resources.database, bench.tenant, bench.agents(), executor)


async def outcome(bench: Bench, run_id: UUID) -> tuple[RunStatus, Any]:
    row = await ended(bench, run_id)
    return row.status, row.output


class TestEffects:
    async def test_in_doubt_are_repeated_with_the_key_of_the_first_run(self, bench: Bench) -> None:
        script = in_turn(says(ok(b"one")), says(BROKEN), says(BROKEN), says(ok(b"two")))
        async with peer(script) as there, way_out(there.authority) as egress:
            executor = bench.executor("local:effects", http=door(bench, egress))
            async with executor.running(), asyncio.timeout(30):
                run = await failed(bench, executor, there.url)
                again = await service(bench, executor).resume(run.id, Wanted(RunMode.BACKGROUND))
                assert (await outcome(bench, again))[0] is RunStatus.FAILED
                last = await service(bench, executor).resume(again, Wanted(RunMode.BACKGROUND))
                assert await outcome(bench, last) == (RunStatus.SUCCEEDED, {"text": "two"})
        paths = [request.target for request in there.requests]
        assert paths == ["/first", "/second", "/second", "/second"]
        keys = {request.headers["idempotency-key"] for request in there.requests[1:]}
        assert len(keys) == 1

    async def test_of_a_fork_have_keys_of_their_own(self, bench: Bench) -> None:
        script = in_turn(says(ok(b"one")), says(BROKEN), says(ok(b"two")))
        async with peer(script) as there, way_out(there.authority) as egress:
            executor = bench.executor("local:effects", http=door(bench, egress))
            async with executor.running(), asyncio.timeout(30):
                run = await failed(bench, executor, there.url)
                checkpoints = await service(bench, executor).checkpoints(run.id)
                fork = await service(bench, executor).fork(run.id, checkpoints[0], Wanted(RunMode.BACKGROUND))
                assert await outcome(bench, fork) == (RunStatus.SUCCEEDED, {"text": "two"})
        keys = [request.headers["idempotency-key"] for request in there.requests]
        assert len(set(keys)) == 3
