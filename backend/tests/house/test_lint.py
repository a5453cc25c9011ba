"""The AST lint: each rule catches its planted violation and leaves the allowed place alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path, PurePosixPath

import pytest

from scripts import lint

PLAIN = "app/services/thing.py"


def rules(text: str, *, path: str = PLAIN) -> list[str]:
    return [finding.rule for finding in lint.check(PurePosixPath(path), text)]


class TestSizes:
    def test_a_module_of_the_largest_size_passes(self) -> None:
        assert rules("x = 1\n" * lint.MAX_MODULE_LINES) == []

    def test_a_longer_module_is_reported(self) -> None:
        assert rules("x = 1\n" * (lint.MAX_MODULE_LINES + 1)) == ["module-length"]

    def test_a_function_of_the_largest_size_passes(self) -> None:
        assert rules("def f():\n" + "    x = 1\n" * (lint.MAX_FUNCTION_LINES - 1)) == []

    @pytest.mark.parametrize("start", ["def f():\n", "async def f():\n"])
    def test_a_longer_function_is_reported(self, start: str) -> None:
        assert rules(start + "    x = 1\n" * lint.MAX_FUNCTION_LINES) == ["function-length"]

    def test_tests_are_measured_too(self) -> None:
        text = "x = 1\n" * (lint.MAX_MODULE_LINES + 1)
        assert rules(text, path="tests/rag/test_thing.py") == ["module-length"]

    def test_a_migration_may_be_long(self) -> None:
        text = "def upgrade():\n" + "    x = 1\n" * lint.MAX_MODULE_LINES
        assert rules(text, path="alembic/versions/0001_identity.py") == []


class TestNames:
    @pytest.mark.parametrize(
        "path",
        [
            "app/utils.py",
            "app/rag/text_helpers.py",
            "app/misc/thing.py",
            "app/seed_data.py",
            "app/util/__init__.py",
        ],
    )
    def test_a_vague_name_is_reported(self, path: str) -> None:
        assert rules("", path=path) == ["module-name"]

    def test_a_name_that_only_ends_alike_passes(self) -> None:
        assert rules("", path="app/metadata.py") == []


class TestChokePoints:
    def test_commit_outside_the_session_is_reported(self) -> None:
        assert rules("async def f(session):\n    await session.commit()\n") == ["commit"]

    def test_the_session_may_commit(self) -> None:
        assert rules("connection.commit()", path="app/db/session.py") == []

    @pytest.mark.parametrize(
        "statement",
        [
            "import httpx2",
            "import httpx",
            "from httpx2 import AsyncClient",
            "import requests.adapters",
            "import urllib.request",
            "from urllib import request",
            "import aiohttp",
            "importlib.import_module('httpx2')",
        ],
    )
    def test_a_raw_http_client_is_reported(self, statement: str) -> None:
        assert rules(statement) == ["http-client"]

    @pytest.mark.parametrize("path", ["app/core/egress.py", "app/core/egress/transport.py", "app/cli/ask.py"])
    def test_egress_and_the_command_line_may_use_one(self, path: str) -> None:
        assert rules("import httpx2", path=path) == []

    def test_parsing_addresses_is_no_client(self) -> None:
        assert rules("from urllib.parse import urlsplit") == []

    @pytest.mark.parametrize(
        "statement",
        ["import langgraph", "from langgraph.graph import StateGraph", "import_module('langgraph.types')"],
    )
    def test_langgraph_is_reported(self, statement: str) -> None:
        assert rules(statement, path="app/agent/graph/executable.py") == ["langgraph"]

    @pytest.mark.parametrize("path", ["app/agent/langgraph_adapter.py", "app/services/runs/checkpoints.py"])
    def test_the_adapter_and_the_checkpoint_saver_may_know_langgraph(self, path: str) -> None:
        assert rules("from langgraph.graph import StateGraph", path=path) == []

    def test_importing_our_adapter_is_not_importing_langgraph(self) -> None:
        assert rules("from app.agent.langgraph_adapter import build") == []

    def test_tests_go_where_the_product_may_not(self) -> None:
        assert rules("import httpx2, langgraph\nconnection.commit()", path="tests/api/test_thing.py") == []


class TestExecution:
    @pytest.mark.parametrize("path", [PLAIN, "app/core/egress.py", "tests/api/test_thing.py"])
    @pytest.mark.parametrize(
        "statement", ["import pickle", "from marshal import loads", "import cloudpickle"]
    )
    def test_a_serializer_that_runs_code_is_reported_everywhere(self, statement: str, path: str) -> None:
        assert rules(statement, path=path) == ["serializer"]

    @pytest.mark.parametrize("statement", ["eval(text)", "exec(text)", "builtins.eval(text)"])
    def test_running_text_as_code_is_reported(self, statement: str) -> None:
        assert rules(statement) == ["execution"]

    def test_methods_of_that_name_are_something_else(self) -> None:
        assert rules("redis.eval(script)\nasyncio.create_subprocess_exec('true')") == []


class TestComments:
    def test_an_ignored_type_error_without_its_code_is_reported(self) -> None:
        assert rules("x = f()  # type: ignore") == ["type-ignore"]

    def test_one_with_its_code_passes(self) -> None:
        assert rules("x = f()  # type: ignore[no-untyped-call]") == []

    @pytest.mark.parametrize("marker", ["TODO", "FIXME", "XXX"])
    def test_unfinished_work_is_reported(self, marker: str) -> None:
        assert rules(f"x = 1  # {marker}: later") == ["unfinished"]

    def test_a_string_is_no_comment(self) -> None:
        assert rules("x = '# TODO'") == []


class TestCommand:
    def run(self, root: Path) -> subprocess.CompletedProcess[str]:
        script = Path(lint.__file__)
        return subprocess.run(
            [sys.executable, script, root], capture_output=True, text=True, check=False, timeout=30
        )

    def test_prints_place_rule_and_message_and_fails(self, tmp_path: Path) -> None:
        module = tmp_path / "app" / "db" / "thing.py"
        module.parent.mkdir(parents=True)
        module.write_text("import pickle\n\nsession.commit()\n")
        (tmp_path / "main.py").write_text("def f(:\n")
        result = self.run(tmp_path)
        assert result.returncode == 1
        places = [line.split(": ")[:2] for line in result.stdout.splitlines()]
        assert places == [
            ["main.py:1", "syntax"],
            ["app/db/thing.py:1", "serializer"],
            ["app/db/thing.py:3", "commit"],
        ]

    def test_is_silent_about_a_clean_tree(self, tmp_path: Path) -> None:
        (tmp_path / "main.py").write_text("x = 1\n")
        result = self.run(tmp_path)
        assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
