"""Seen from inside one process: of clients that vanish no task is left, and no connection is kept."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from tests.api.calls import new_agent
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client, running_server, settings_for
from tests.openai_compatible_double import Double
from tests.trust.runs.agents import talking_graph
from tests.trust.runs.conftest import Fleet
from tests.trust.runs.rows import until
from tests.trust.runs.streams import first, opened
from tests.trust.runs.talking import question

pytestmark = pytest.mark.asyncio(loop_scope="session")

CLIENTS = [20, pytest.param(150, marks=pytest.mark.soak)]
WORDS = 10


@pytest_asyncio.fixture(loop_scope="session")
async def server(fleet: Fleet, tmp_path: Path) -> AsyncIterator[Running]:
    """In this process, on the same database as the others."""
    usual = settings_for(fleet.services, tmp_path, blobs=tmp_path / "blobs")
    of_model = {"openai_base_url": fleet.model.base_url, "default_chat_model": "openai/double-1"}
    async with running_server(usual.model_copy(update=of_model)) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def member(server: Running) -> Member:
    return await Factory(server.resources).member()


@pytest_asyncio.fixture(loop_scope="session")
async def client(server: Running, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    async with http_client(server, member.key) as opened:
        yield opened


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


@pytest.mark.parametrize("count", CLIENTS)
async def test_vanishing_clients_leave_no_task_and_no_connection(
    server: Running,
    member: Member,
    client: httpx2.AsyncClient,
    model: Double,
    lots: random.Random,
    count: int,
) -> None:
    agent = await new_agent(client, talking_graph(1))

    async def vanish() -> None:
        body = {"input": question(WORDS, every_s=0.02), "mode": "stream"}
        headers = {"Authorization": f"Bearer {member.key}"}
        async with opened(server.url, f"/agents/{agent}/runs", body=body, headers=headers) as stream:
            await first(stream, lots.randrange(WORDS))
            stream.vanish()

    await vanish()  # what is made once is there
    pool = server.resources.database.engine.pool

    async def calm() -> bool:
        return not server.resources.executor.tasks and not pool.checkedout() and not model.open  # type: ignore[attr-defined]

    await until(calm)
    before = tasks()
    await asyncio.gather(*(vanish() for _ in range(count)))
    await until(calm)

    async def gone() -> bool:
        return tasks() <= before

    await until(gone)
