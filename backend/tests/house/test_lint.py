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

    @pytest.mark.parametrize("path", ["app/api/routers/secrets.py", "app/cli/ask.py", "app/agent/factory.py"])
    def test_asking_for_the_value_of_a_secret_is_reported(self, path: str) -> None:
        assert rules("value = await secrets.reveal(name)", path=path) == ["reveal"]

    def test_services_may_ask_for_it(self) -> None:
        assert rules("secrets.reveal(name)", path="app/services/tool_service.py") == []

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


WAYS_OUT = [
    "import httpx2",
    "import httpx",
    "from httpx2 import AsyncClient",
    "import httpcore2",
    "import httpcore",
    "import requests.adapters",
    "import urllib.request",
    "from urllib import request",
    "import urllib3",
    "import aiohttp",
    "import http.client",
    "from http import client",
    "importlib.import_module('httpx2')",
    "__import__('requests')",
    "import ftplib",
    "import smtplib",
    "from smtplib import SMTP",
    "import telnetlib",
    "import imaplib",
    "import xmlrpc.client",
    "import websockets",
    "from websockets.asyncio.client import connect",
    "import grpc",
    "import paramiko",
    "from socket import create_connection",
    "from socket import socket as plug",
    "import socket\nsocket.socket()",
    "import socket as s\ns.create_connection(('a', 1))",
    "import asyncio\nasyncio.open_connection('a', 1)",
    "from asyncio import open_connection",
    "from asyncio.streams import open_connection",
    "import asyncio as a\na.open_unix_connection('/run/docker.sock')",
    "import anyio\nanyio.connect_tcp('a', 1)",
    "loop.create_connection(make, 'a', 1)",
    "asyncio.get_running_loop().create_datagram_endpoint(make)",
    "loop.sock_connect(plug, ('a', 1))",
    "plug.connect_ex(('a', 1))",
    "subprocess.run(['curl', url])",
    "command = ['/usr/bin/wget', '-q', url]",
    "os.system('curl -s ' + url)",
    "subprocess.check_output('wget -q x', shell=True)",
    "asyncio.create_subprocess_exec('curl', url)",
    "os.execvp('ssh', arguments)",
    "Popen(('nc', host))",
]


class TestWaysOut:
    @pytest.mark.parametrize("path", [PLAIN, "app/core/blobs.py", "app/cli/ask.py", "scripts/fetch.py"])
    @pytest.mark.parametrize("statement", WAYS_OUT)
    def test_are_reported(self, statement: str, path: str) -> None:
        assert rules(statement, path=path) == ["way-out"]

    @pytest.mark.parametrize("statement", WAYS_OUT)
    def test_are_the_tests_business(self, statement: str) -> None:
        assert rules(statement, path="tests/api/test_thing.py") == []

    @pytest.mark.parametrize(
        ("way", "module"), [(way, module) for way, allowed in lint.WAYS_OUT.items() for module in allowed]
    )
    def test_are_open_to_those_listed(self, way: str, module: str) -> None:
        module_of_way, _, name = way.rpartition(".")
        statement = f"from {module_of_way} import {name}" if module_of_way else f"import {way}"
        assert rules(statement, path=f"{module.replace('.', '/')}.py") == []

    @pytest.mark.parametrize(
        "module", sorted({module for allowed in lint.WAYS_OUT.values() for module in allowed})
    )
    def test_are_open_to_nothing_that_is_gone(self, module: str) -> None:
        place = Path(lint.__file__).parents[1] / module.replace(".", "/")
        assert place.is_dir() or place.with_suffix(".py").is_file()

    @pytest.mark.parametrize(
        "statement",
        [
            "from urllib.parse import urlsplit",
            "import socket\nsocket.gethostname()\nsocket.socketpair()",
            "from http import HTTPStatus",
            "import asyncio\nasyncio.start_server(serve)",
            "engine.connect()",
            "asyncio.run(main())",
            "subprocess.run(['psql', 'curl'])",
            "import httpx2_of_ours",
        ],
    )
    def test_are_not_seen_where_there_are_none(self, statement: str) -> None:
        assert rules(statement) == []


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
