"""Agents in git: exported, compared, planned and applied against a server; and their versions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH, greeting_graph
from tests.trust.serving import Platform

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def greeter(served: Platform, tmp_path: Path, command: Command) -> str:
    """A published agent, exported into the folder."""
    slug = f"greeter-{tmp_path.name[-30:].replace('_', '-').lower().strip('-')}"
    with served.client() as client:
        for other in client.get("/agents").json()["items"]:
            client.post(f"/agents/{other['slug']}/archive").raise_for_status()
        body = {"name": "Greeter", "slug": slug, "graph": HELLO_GRAPH}
        client.post("/agents", json=body).raise_for_status()
        client.post(f"/agents/{slug}/publish").raise_for_status()
    done = command(["export", tmp_path], served.data_dir)
    assert done.returncode == 0, done.stderr
    return slug


def edit(folder: Path, slug: str, text: str) -> None:
    file = folder / "agents" / f"{slug}.yaml"
    document = yaml.safe_load(file.read_text())
    document["graph"] = greeting_graph(text)
    file.write_text(yaml.safe_dump(document))


class TestFolder:
    def test_as_exported_is_nothing_to_do(
        self, command: Command, served: Platform, greeter: str, tmp_path: Path
    ) -> None:
        assert [file.name for file in (tmp_path / "agents").iterdir()] == [f"{greeter}.yaml"]
        for name in ("diff", "plan", "apply"):
            done = command([name, tmp_path], served.data_dir)
            assert (done.returncode, done.stdout.splitlines()[0][0]) == (0, "="), done.stdout

    def test_that_was_changed_is_told_and_ends_with_2(
        self, command: Command, served: Platform, greeter: str, tmp_path: Path
    ) -> None:
        edit(tmp_path, greeter, "Bye!")
        done = command(["diff", tmp_path], served.data_dir)
        assert done.returncode == 2
        assert done.stdout.splitlines()[1] == (
            '    ~ node greet: config/text "Hello, {{ inputs.name }}!" → "Bye!"'
        )

    def test_is_applied_and_published_once(
        self, command: Command, served: Platform, greeter: str, tmp_path: Path
    ) -> None:
        edit(tmp_path, greeter, "Bye!")
        told = []
        for name in ("plan", "apply", "plan", "apply"):
            done = command([name, tmp_path, "--publish", "--json"], served.data_dir)
            (agent,) = json.loads(done.stdout)["agents"]
            told.append((done.returncode, agent["action"], agent["answer"]["publishes"]))
        assert told == [
            (2, "update", True),
            (0, "update", True),
            (0, "unchanged", False),
            (0, "unchanged", False),
        ]

    def test_with_a_broken_file_ends_with_1_and_names_it(
        self, command: Command, served: Platform, greeter: str, tmp_path: Path
    ) -> None:
        (tmp_path / "agents" / "broken.yaml").write_text("slug: broken\nslug: twice\n")
        done = command(["apply", tmp_path], served.data_dir)
        assert done.returncode == 1
        assert "broken.yaml: failed" in done.stdout
        assert "line 2, column 1" in done.stdout
        assert f"{greeter}.yaml: unchanged" in done.stdout

    def test_that_is_not_there_says_so(self, command: Command, served: Platform, tmp_path: Path) -> None:
        done = command(["plan", tmp_path], served.data_dir)
        assert done.returncode == 1
        assert "There is no folder" in done.stderr


class TestVersions:
    def test_are_published_rolled_back_and_listed(
        self, command: Command, served: Platform, greeter: str, tmp_path: Path
    ) -> None:
        edit(tmp_path, greeter, "Bye!")
        command(["apply", tmp_path], served.data_dir)
        done = command(["agents", "publish", greeter, "--note", "shorter"], served.data_dir)
        assert done.stdout == f"{greeter}: version 2 is live\n"
        done = command(["agents", "rollback", greeter, "1"], served.data_dir)
        assert done.stdout == f"{greeter}: version 3 is live\n"
        lines = command(["agents", "versions", greeter], served.data_dir).stdout.splitlines()
        assert [line.split()[0] for line in lines] == ["3", "2", "1"]
        assert lines[0].endswith("Rollback to version 1")
        assert lines[1].endswith("shorter")

    def test_archive_and_back(self, command: Command, served: Platform, greeter: str) -> None:
        assert command(["agents", "archive", greeter], served.data_dir).stdout == f"{greeter}: archived\n"
        refused = command(["agents", "publish", greeter], served.data_dir)
        assert (refused.returncode, "is archived" in refused.stderr) == (1, True)
        back = command(["agents", "archive", greeter, "--undo"], served.data_dir)
        assert back.stdout == f"{greeter}: unarchived\n"
