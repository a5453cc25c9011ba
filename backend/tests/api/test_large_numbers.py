"""Integers that no float holds, from others: they come to the output, to the timeline and to replays."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from app.core.egress import Rule
from tests.api.calls import API, new_agent, ok
from tests.core.peers import Peer, peer, says
from tests.core.peers import ok as replied
from tests.fixtures import Running, claims_alone, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

LARGE = [10**20 - 1, 10**400]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def other() -> AsyncIterator[Peer]:
    body = f'{{"all": {LARGE}}}'.encode()
    async with peer(says(replied(body, headers=["Content-Type: application/json"]))) as opened:
        yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def server(settings: Settings, other: Peer) -> AsyncIterator[Running]:
    opened = (Rule.parse(other.authority),)
    async with running_server(settings.model_copy(update={"egress_allow": opened})) as running:
        yield running


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, server: Running) -> None:
    claims_alone(monkeypatch, server)


async def test_are_kept_as_they_are(client: httpx2.AsyncClient, other: Peer) -> None:
    graph = {
        "schema_version": "1",
        "nodes": [
            {"id": "start", "type": "start"},
            {"id": "get", "type": "http", "config": {"url": other.url}},
            {"id": "done", "type": "end", "config": {"output": {"all": "{{ get.body.all }}"}}},
        ],
        "edges": [{"source": "start", "target": "get"}, {"source": "get", "target": "done"}],
    }
    slug = await new_agent(client, graph)
    run = ok(await client.post(f"{API}/agents/{slug}/runs", json={}))
    assert (run["status"], run["output"]) == ("succeeded", {"all": LARGE})
    found = ok(await client.get(f"{API}/runs/{run['id']}/timeline"))["items"]
    assert next(entry["output"]["body"] for entry in found if entry["node_path"] == "get") == {"all": LARGE}
    again = ok(await client.post(f"{API}/runs/{run['id']}/replay", json={"mode": "wait"}))
    assert (again["status"], again["output"]) == ("succeeded", {"all": LARGE})
