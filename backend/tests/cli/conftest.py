"""One platform for all commands that speak to a server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest

from app.cli import main
from app.core.config import get_settings
from tests.trust.serving import Platform, environment, open_folder


class Command(Protocol):
    def __call__(
        self, arguments: Sequence[str | Path], data_dir: Path, **changes: str
    ) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    """Runs `orrery` in this process, which is quicker than starting one: for commands that only talk."""

    def run(
        arguments: Sequence[str | Path], data_dir: Path, **changes: str
    ) -> subprocess.CompletedProcess[str]:
        for name in [name for name in os.environ if name.startswith("ORRERY_")]:
            monkeypatch.delenv(name)
        for name, value in environment(data_dir, **changes).items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(data_dir.parent)
        get_settings.cache_clear()
        argv = ["orrery", *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(argv, code, out, err)

    yield run
    get_settings.cache_clear()


@pytest.fixture(scope="session")
def served() -> Iterator[Platform]:
    with open_folder() as folder:
        platform = Platform(folder / "data")
        platform.start()
        try:
            yield platform
        finally:
            platform.stop()


@pytest.fixture(scope="session")
def notes(served: Platform) -> Path:
    """A folder of documents beside the data folder."""
    folder = served.data_dir.parent / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "travel.md").write_text("# Travel\n\nThe company pays 0.42 euro per kilometre by car.\n")
    (folder / "deep" / "markup.txt").write_text(
        "Brackets [/bold] and [red] and :smile: stay, in the lantern."
    )
    (folder / ".hidden.txt").write_text("Nobody sees this.")
    return folder
