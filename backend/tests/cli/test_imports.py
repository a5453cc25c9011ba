"""Commands that only talk to a server import neither the engines nor the database."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ["alembic", "celery", "fastapi", "langgraph", "numpy", "onnxruntime", "sqlalchemy"]
PROGRAM = """
import sys
from app.cli.commands import cli
from typer.main import get_command
command = get_command(cli)
if len(sys.argv) > 2:
    command.get_command(None, sys.argv[2])
print(*(name for name in sys.argv[1].split(",") if name in sys.modules))
"""


@pytest.mark.parametrize(
    "arguments", [(), ("ask",), ("ingest",), ("search",), ("eval",), ("validate",), ("runs",), ("agents",)]
)
def test_are_few(arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", PROGRAM, ",".join(HEAVY), *arguments]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() == []


def test_of_serve_are_many() -> None:
    command = [sys.executable, "-c", PROGRAM, ",".join(HEAVY), "serve"]
    assert "sqlalchemy" in subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
