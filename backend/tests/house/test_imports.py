"""The import contracts: a planted violation breaks each; every room has its place in them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((BACKEND / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

PLANTED = {
    "layers": {
        "app/core/wrong.py": "import app.db",  # upwards
        "app/rag/wrong_sibling.py": "import app.agent",  # sideways
        "app/services/rag_service.py": "import app.services.tool_service",  # sideways among services
        "app/services/runs/wrong.py": "import app.services.agent_service",
        "app/workers/wrong.py": "import app.api.routers",
    },
    "main": {"app/cli/wrong.py": "import main"},
    "embedded": {"app/embedded/wrong.py": "import app.db"},
    "delivery": {
        "app/services/wrong_web.py": "from fastapi import Depends",
        "app/db/wrong.py": "import celery",
        "app/agent/wrong_voice.py": "import livekit.api",
    },
    "http": {
        "app/services/llm/wrong.py": "import httpx2",
        "app/agent/wrong_web.py": "import httpcore2",
        "app/rag/wrong_web.py": "from urllib3 import PoolManager",
        "app/api/routers/wrong_socket.py": "import websockets",
        "app/workers/wrong_mail.py": "import smtplib",
    },
    "sql": {
        "app/agent/wrong_sql.py": "from sqlalchemy import select",
        "app/rag/components/wrong.py": "import asyncpg",
    },
    "langgraph": {"app/agent/graph/wrong_engine.py": "from langgraph.graph import StateGraph"},
}
ALLOWED = {
    "app/agent/langgraph_adapter.py": "from langgraph.graph import StateGraph",
    "app/services/runs/checkpoints.py": "from langgraph.checkpoint.base import BaseCheckpointSaver",
    "app/rag/providers/vector_store/pgvector.py": "import pgvector.sqlalchemy",
    "app/services/agent_service.py": "import app.services.runs, app.agent",
    "app/services/tool_service.py": "import app.api.schemas, app.core.egress",
    "app/core/egress/client.py": "import httpx2",
    "app/api/routers/agents.py": "import fastapi, app.api.dependencies",
}


def places() -> set[str]:
    """Modules that the layers name."""
    layers = next(contract["layers"] for contract in CONTRACTS if contract["id"] == "layers")
    return {place.strip(" ()") for layer in layers for place in layer.replace(":", "|").split("|")}


def lint(root: Path) -> str:
    """What import-linter says about the tree under `root`."""
    program = Path(sys.executable).with_name("lint-imports")
    result = subprocess.run(
        [program, "--no-cache", "--no-logo"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return result.stdout


@pytest.fixture(scope="class")
def skeleton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Our packages and contracts without our code, but with the imports that are allowed."""
    root = tmp_path_factory.mktemp("skeleton")
    shutil.copy(BACKEND / "pyproject.toml", root)
    for package in (BACKEND / "app").rglob("__init__.py"):
        plant(root, {str(package.relative_to(BACKEND)): ""})
    plant(root, {"app/rag/types.py": ""} | ALLOWED)
    yield root
    shutil.rmtree(root)


@pytest.fixture(scope="class")
def report(skeleton: Path) -> str:
    """What import-linter says once every violation is planted, in one run."""
    plant(skeleton, {name: text for files in PLANTED.values() for name, text in files.items()})
    return lint(skeleton)


def plant(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


class TestAllowed:
    def test_what_the_rooms_are_for_breaks_nothing(self, skeleton: Path) -> None:
        report = lint(skeleton)
        assert f"Contracts: {len(CONTRACTS)} kept, 0 broken." in report


class TestPlanted:
    @pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: contract["id"])
    def test_breaks_its_contract(self, report: str, contract: dict[str, str]) -> None:
        assert f"{contract['name']} BROKEN" in report

    @pytest.mark.parametrize("name", [name for files in PLANTED.values() for name in files])
    def test_is_named(self, report: str, name: str) -> None:
        assert name.removesuffix(".py").replace("/", ".") in report


class TestContracts:
    def test_none_has_an_exception(self) -> None:
        assert [contract["id"] for contract in CONTRACTS if contract.get("ignore_imports")] == []

    @pytest.mark.parametrize("room", ["app", "app/api", "app/services"])
    def test_every_module_of_a_room_has_a_place(self, room: str) -> None:
        modules = {
            ".".join(path.relative_to(BACKEND).with_suffix("").parts)
            for path in (BACKEND / room).iterdir()
            if (path.suffix == ".py" and path.name != "__init__.py") or (path / "__init__.py").is_file()
        }
        assert modules - places() - {"app.api", "app.services"} == set()
