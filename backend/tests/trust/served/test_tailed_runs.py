"""`orrery runs tail` while the platform is killed and started again."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

from tests.graphs import HELLO_GRAPH, asking_graph
from tests.trust.serving import Platform, started

pytestmark = pytest.mark.timeout(300)


def patient_graph() -> dict[str, Any]:
    """Its one call has no time at all, and is tried again much later."""
    graph = asking_graph("default-chat")
    retry = {"initial_s": 600, "max_s": 600, "jitter": False}
    nodes = [
        node | {"timeout_s": 0.000001, "retry": retry} if node["id"] == "ask" else node
        for node in graph["nodes"]
    ]
    return HELLO_GRAPH | graph | {"nodes": nodes}


def test_shows_the_log_as_it_is_stored_across_kill_and_restart(platform: Platform) -> None:
    with platform.client() as client:
        client.post("/agents", json={"name": "Patient", "graph": patient_graph()}).raise_for_status()
        body = {"input": {"name": "Ada"}, "mode": "background", "version": "draft"}
        run = client.post("/agents/patient/runs", json=body).raise_for_status().json()["id"]
    arguments = ["runs", "tail", run, "--json"]
    with started(arguments, platform.data_dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout
        first = [tail.stdout.readline()]
        while '"retry"' not in first[-1]:
            assert first[-1], "it ended before the run was killed"
            first.append(tail.stdout.readline())
        platform.kill()
        platform.start()
        with platform.client() as client:
            client.post(f"/runs/{run}/cancel", params={"wait": "true"}).raise_for_status()
            stored = client.get(f"/runs/{run}/events").text
        rest, aside = tail.communicate(timeout=60)
    told = [json.loads(line) for line in [*first, *rest.splitlines()]]
    assert told == [json.loads(line[6:]) for line in stored.splitlines() if line.startswith("data: ")]
    assert told[-1]["event"]["type"] == "RUN_ERROR"
    assert tail.returncode == 1
    assert aside.startswith("waiting: ")
