"""Recorded runs of mixed graphs are replayed with the network closed: the events are the same."""

from __future__ import annotations

import json
import random
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from tests.openai_compatible_double import Double
from tests.trust.runs.agents import published, talking_graph
from tests.trust.runs.effects import effects
from tests.trust.runs.elsewhere import elsewhere
from tests.trust.runs.mixed_graphs import Mixed
from tests.trust.serving import Platform, eventually

pytestmark = pytest.mark.timeout(300)

PASSING = {"runId", "threadId", "messageId", "message_id", "interrupt_id", "duration_ms", "delay_ms"}


def told(client: httpx2.Client, run_id: str) -> list[Any]:
    """The run's events without ids and times."""
    blocks = client.get(f"/runs/{run_id}/events").text.strip().split("\n\n")
    data = [
        json.loads(line[6:]) for block in blocks for line in block.splitlines() if line.startswith("data: ")
    ]
    return [(one["seq"], one["node_path"], lasting(one["event"])) for one in data]


def lasting(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: lasting(item) for name, item in value.items() if name not in PASSING}
    return [lasting(item) for item in value] if isinstance(value, list) else value


def begun(client: httpx2.Client, lots: random.Random, url: str, *, fails: bool) -> str:
    """The id of a run of an agent made by lot."""
    name = f"mixed-{uuid4().hex[:8]}"
    published(client, name, Mixed(lots, url).document(fails=fails))
    made = client.post(f"/agents/{name}/runs", json={"input": {"name": uuid4().hex}, "mode": "background"})
    return str(made.json()["id"])


def ended(client: httpx2.Client, run_id: str) -> bool:
    """Answers whatever is asked meanwhile."""
    for one in client.get(f"/runs/{run_id}/interrupts?status=open").json()["items"]:
        client.post(f"/runs/{run_id}/interrupts/{one['id']}", json={"data": {"why": "because"}})
    return bool(client.get(f"/runs/{run_id}").json()["finished_at"])


def check_replay(client: httpx2.Client, run: dict[str, Any]) -> None:
    replay = client.post(f"/runs/{run['id']}/replay", json={"mode": "wait"}).json()
    assert told(client, replay["id"]) == told(client, run["id"])
    assert [replay[name] for name in ("status", "output", "error")] == [
        run[name] for name in ("status", "output", "error")
    ]


@pytest.mark.parametrize(
    "count", [pytest.param(20, id="twenty"), pytest.param(200, id="two-hundred", marks=pytest.mark.soak)]
)
def test_recorded_runs_tell_the_same_again(
    api: Platform, model: Double, lots: random.Random, count: int
) -> None:
    with api.client() as client:
        published(client, "helper", talking_graph(2))
        with elsewhere(effects(random.Random(lots.random()))) as service:
            runs = [begun(client, lots, service.url, fails=number % 5 == 0) for number in range(count)]
            for run_id in runs:
                eventually(lambda run_id=run_id: ended(client, run_id))
        asked = len(model.calls)
        found = [client.get(f"/runs/{run_id}").json() for run_id in runs]
        assert {run["status"] for run in found} == {"succeeded", "failed"}
        for run in found:
            check_replay(client, run)
        assert len(model.calls) == asked
