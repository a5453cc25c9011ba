"""`orrery validate`: every issue with its line and remedy, and an exit code that programs can go by."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.agent.graph.places import Places
from app.cli.validating import Validated, validate
from tests.cli.conftest import Command
from tests.graphs import HELLO_GRAPH
from tests.trust.serving import Platform, open_folder

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "agents"
BROKEN = """\
schema_version: "1"
inputs: {type: object, properties: {name: {type: string}}}
nodes:
  - id: start
    type: start
  - id: greet
    type: template
    config:
      text: "Hello, {{ inputs.nam }}!"
  - id: done
    type: end
    config:
      output:
        text: "{{ greet.text }}"
edges:
  - {source: start, target: greet}
  - {source: greet, target: done}
"""


def found(validated: Validated) -> list[tuple[str, int | None]]:
    return [(issue.code, line) for issue, line in validated.found]


def written(folder: Path, text: str) -> Path:
    path = folder / "agent.yaml"
    path.write_text(text)
    return path


class TestLines:
    def test_are_those_of_the_yaml(self, tmp_path: Path) -> None:
        assert found(validate(written(tmp_path, BROKEN))) == [("unknown_reference", 9)]

    @pytest.mark.parametrize("indent", [None, 1, "\t"])
    def test_are_those_of_the_json(self, tmp_path: Path, indent: int | str | None) -> None:
        text = json.dumps(yaml.safe_load(BROKEN), indent=indent)
        line = text[: text.index("inputs.nam")].count("\n") + 1
        assert found(validate(written(tmp_path, text))) == [("unknown_reference", line)]

    @pytest.mark.parametrize("text", ["a: 1\nb: [2\nc: 3\n", '{"a": 1,\n "b":\n 2 3}', "a: 1\nb: 2\na: 3\n"])
    def test_are_known_of_a_mistake_in_the_notation(self, tmp_path: Path, text: str) -> None:
        assert found(validate(written(tmp_path, text))) == [("invalid_syntax", 3)]

    @pytest.mark.parametrize(
        ("pointer", "line"), [("", 1), ("/a~1b", 1), ("/a~1b/1/c", 3), ("/a~1b/1/x/y", 3)]
    )
    def test_are_of_the_nearest_part_that_is_there(self, pointer: str, line: int) -> None:
        assert Places("a/b:\n  - 1\n  - c: 2\n").line(pointer) == line


class TestCommand:
    @pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.yaml")), ids=lambda file: file.name)
    def test_takes_our_examples(self, command: Command, file: Path, tmp_path: Path) -> None:
        done = command(["validate", file], tmp_path / "data")
        assert (done.returncode, done.stdout) == (0, f"{file}: valid\n")

    def test_prints_place_message_and_fix(self, command: Command, tmp_path: Path) -> None:
        done = command(["validate", written(tmp_path, BROKEN)], tmp_path / "data")
        assert done.returncode == 1
        heading, message, fix, verdict = done.stdout.splitlines()
        assert heading.endswith("agent.yaml:9: error unknown_reference at /nodes/1/config/text")
        assert "'nam'" in message
        assert fix.startswith("  fix: did you mean 'name'?")
        assert verdict.endswith("agent.yaml: invalid, 1 error")

    def test_prints_one_json_document(self, command: Command, tmp_path: Path) -> None:
        file = written(tmp_path, BROKEN)
        done = command(["validate", file, "--json"], tmp_path / "data")
        told: dict[str, Any] = json.loads(done.stdout)
        (issue,) = told.pop("issues")
        assert told == {"file": str(file), "valid": False, "checked_by": "offline"}
        assert set(issue) == {"code", "severity", "node_id", "pointer", "message", "fix", "line"}

    def test_reads_standard_input(
        self, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(json.dumps(HELLO_GRAPH).encode())))
        done = command(["validate", "-"], tmp_path / "data")
        assert (done.returncode, done.stdout) == (0, "standard input: valid\n")

    @pytest.mark.parametrize("content", [None, b"\xff\xfe"])
    def test_that_cannot_read_ends_with_2(
        self, command: Command, tmp_path: Path, content: bytes | None
    ) -> None:
        file = tmp_path / "agent.yaml"
        if content is not None:
            file.write_bytes(content)
        done = command(["validate", file], tmp_path / "data")
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("Error: ")
        assert str(file) in done.stderr.replace("\n", "")


class TestByTheServer:
    def test_knows_what_the_bindings_name(self, command: Command, served: Platform, tmp_path: Path) -> None:
        graph = HELLO_GRAPH | {"bindings": {"collections": {"kb": "nowhere"}}}
        file = written(tmp_path, json.dumps(graph))
        assert command(["validate", file], served.data_dir).returncode == 0
        done = command(["validate", file, "--server", "--json"], served.data_dir)
        assert done.returncode == 1, done.stderr
        told = json.loads(done.stdout)
        assert told["checked_by"] == served.url
        assert [issue["code"] for issue in told["issues"]] == ["unknown_binding"]

    def test_that_is_not_there_ends_with_2(self, command: Command, tmp_path: Path) -> None:
        file = written(tmp_path, json.dumps(HELLO_GRAPH))
        with open_folder() as folder:
            done = command(["validate", file, "--server"], folder / "data")
        assert done.returncode == 2
        assert "orrery serve" in done.stderr
