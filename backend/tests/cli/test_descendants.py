"""`orrery runs replay`, `resume`, `fork`, `checkpoints` and `timeline`, on a running platform."""

from __future__ import annotations

import json
from typing import Any
from uuid import uuid4

import pytest

from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH, greeting_graph
from tests.trust.serving import Platform


def checked(code: str) -> dict[str, Any]:
    """Two nodes that are journalled, the second of which may fail."""
    nodes = [
        {"id": "start", "type": "start"},
        {"id": "size", "type": "code", "config": {"code": "n = 3", "outputs": {"n": "integer"}}},
        {"id": "check", "type": "code", "config": {"code": code, "outputs": {"m": "integer"}}},
        {"id": "done", "type": "end", "config": {"output": {"m": "{{ check.m }}"}}},
    ]
    edges = [("start", "size"), ("size", "check"), ("check", "done")]
    steps = [{"source": source, "target": target} for source, target in edges]
    return HELLO_GRAPH | {"interface": {}, "nodes": nodes, "edges": steps}


class Agent:
    """One agent on `platform`, its graph changed as often as wanted."""

    def __init__(self, platform: Platform, graph: dict[str, Any]) -> None:
        self.platform, self.slug = platform, f"again-{uuid4().hex[:8]}"
        with platform.client() as client:
            body = {"name": "Again", "slug": self.slug, "graph": graph}
            client.post("/agents", json=body).raise_for_status()
            client.post(f"/agents/{self.slug}/publish").raise_for_status()

    def edit(self, graph: dict[str, Any]) -> None:
        with self.platform.client() as client:
            client.patch(f"/agents/{self.slug}", json={"graph": graph}).raise_for_status()

    def run(self) -> str:
        with self.platform.client() as client:
            made = client.post(f"/agents/{self.slug}/runs", json={"input": {"name": "Ada"}})
            return str(made.raise_for_status().json()["id"])


@pytest.fixture
def greeter(served: Platform) -> Agent:
    return Agent(served, HELLO_GRAPH)


class TestReplay:
    def test_of_the_newest_runs_of_an_agent_says_that_they_are_the_same(
        self, command: Command, served: Platform, greeter: Agent
    ) -> None:
        runs = [greeter.run() for _ in range(2)]
        done = command(["runs", "replay", "--agent", greeter.slug], served.data_dir)
        assert done.returncode == 0, done.stderr
        assert [line.split() for line in done.stdout.splitlines()] == [["same", run] for run in runs[::-1]]

    def test_on_a_draft_that_says_something_else_ends_with_1(
        self, command: Command, served: Platform, greeter: Agent
    ) -> None:
        run = greeter.run()
        greeter.edit(greeting_graph("Good evening, {{ inputs.name }}."))
        done = command(["runs", "replay", run, "--version", "draft", "--json"], served.data_dir)
        assert done.returncode == 1
        (told,) = json.loads(done.stdout)
        assert (told["run"], told["verdict"]) == (run, "differs")
        assert "Good evening" in told["why"]

    def test_takes_no_version_that_is_none(self, command: Command, served: Platform, greeter: Agent) -> None:
        done = command(["runs", "replay", greeter.run(), "--version", "newest"], served.data_dir)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr == "Error: --version is 'newest': it is same, live, draft or a number.\n"

    def test_needs_runs_or_an_agent(self, command: Command, served: Platform) -> None:
        done = command(["runs", "replay"], served.data_dir)
        assert (done.returncode, done.stderr) == (2, "Error: Name either runs or --agent.\n")


class TestDescendants:
    def test_resume_follows_the_new_run(self, command: Command, served: Platform) -> None:
        agent = Agent(served, checked("m = 1 // 0"))
        run = agent.run()
        agent.edit(checked("m = 2"))
        done = command(["runs", "resume", run, "--version", "draft"], served.data_dir)
        assert done.returncode == 0, done.stderr
        assert '"m": 2' in done.stdout

    def test_fork_goes_on_from_a_checkpoint(self, command: Command, served: Platform) -> None:
        run = Agent(served, checked("m = 2")).run()
        listed = command(["runs", "checkpoints", run], served.data_dir).stdout.splitlines()
        assert [line.split()[1] for line in listed] == ["size", "check"]
        seq = listed[0].split()[0]
        done = command(["runs", "fork", run, "--checkpoint", seq], served.data_dir)
        assert done.returncode == 0, done.stderr

    def test_resume_of_a_run_that_succeeded_is_refused(
        self, command: Command, served: Platform, greeter: Agent
    ) -> None:
        done = command(["runs", "resume", greeter.run()], served.data_dir)
        assert done.returncode == 2
        assert "only a failed or cancelled one is resumed" in done.stderr


class TestTimeline:
    def test_has_a_line_per_node_and_its_values(
        self, command: Command, served: Platform, greeter: Agent
    ) -> None:
        done = command(["runs", "timeline", greeter.run(), "--values"], served.data_dir)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["start", "greet", "done"]
        assert '    < inputs.name = "Ada"' in lines
        assert '    > text = "Hello, Ada!"' in lines
