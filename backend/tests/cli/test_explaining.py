"""`orrery explain`: a tree for people, JSON for programs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH


def written(folder: Path, graph: object) -> Path:
    file = folder / "agent.json"
    file.write_text(json.dumps(graph))
    return file


def test_prints_each_node_with_what_it_reads(command: Command, tmp_path: Path) -> None:
    done = command(["explain", written(tmp_path, HELLO_GRAPH)], tmp_path / "data")
    assert done.returncode == 0
    for said in ("step 1", "greet template pure", "reads inputs.name", "→ done"):
        assert said in done.stdout


def test_prints_one_json_document(command: Command, tmp_path: Path) -> None:
    done = command(["explain", written(tmp_path, HELLO_GRAPH), "--json"], tmp_path / "data")
    told = json.loads(done.stdout)
    assert [node["id"] for node in told["plan"]["nodes"]] == ["start", "greet", "done"]


def test_a_graph_that_is_not_valid_is_an_error_with_its_places(command: Command, tmp_path: Path) -> None:
    done = command(["explain", written(tmp_path, HELLO_GRAPH | {"edges": []})], tmp_path / "data")
    assert done.returncode == 1
    assert "the agent graph has" in done.stderr
