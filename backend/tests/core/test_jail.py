"""How programs that work for strangers are started, and what is done where bubblewrap is not to be had."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.errors import Unavailable
from app.core.sandbox.jail import Jail, Sandbox, find_jail, launcher
from app.core.sandbox.workers import monty_program
from tests.core.jailed import SPACE, needs_bubblewrap


def test_a_machine_without_bubblewrap_has_limits_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    found = find_jail(monty_program(), Sandbox.AUTO, memory_bytes=SPACE)
    assert found == Jail(None, "the program 'bwrap' is not installed")


def test_a_jail_that_must_be_bubblewrap_is_not_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unavailable, match="ORRERY_SANDBOX is 'bubblewrap', but the program 'bwrap' is not"):
        find_jail(monty_program(), Sandbox.BUBBLEWRAP, memory_bytes=SPACE)


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is for Linux")
def test_a_machine_with_a_bubblewrap_that_does_not_work_has_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bwrap").write_text(
        "#!/bin/sh\necho 'No permissions to create a new namespace' >&2; exit 1\n"
    )
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_jail(monty_program(), Sandbox.AUTO, memory_bytes=SPACE)
    assert found.bubblewrap is None
    assert "No permissions to create a new namespace" in found.lacking


@needs_bubblewrap
def test_a_machine_without_ldd_still_has_a_jail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bwrap = shutil.which("bwrap")
    assert bwrap
    (tmp_path / "bwrap").symlink_to(bwrap)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_jail(monty_program(), Sandbox.BUBBLEWRAP, memory_bytes=SPACE).bubblewrap


@needs_bubblewrap
def test_a_jail_shows_the_program_and_its_libraries_alone() -> None:
    shown = Jail(shutil.which("bwrap")).command(Path("/bin/ls"), memory_bytes=SPACE)
    places = {shown[at + 2] for at, word in enumerate(shown) if word == "--ro-bind"}
    assert "/program" in places
    assert all(Path(place).is_file() for place in places - {"/program"})
    assert "--bind" not in shown


def test_a_jail_is_entered_by_a_file_that_passes_on_its_arguments() -> None:
    with launcher(["/bin/echo", "a b", "$HOME"]) as path:
        done = subprocess.run([path, "last one"], capture_output=True, text=True, check=True)
    assert done.stdout == "a b $HOME last one\n"


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere address space has no bound")
def test_a_jail_that_is_too_small_does_not_start() -> None:
    with launcher(Jail(None).command(monty_program(), memory_bytes=2**20)) as path:
        done = subprocess.run([path, "--version"], capture_output=True, check=False)
    assert done.returncode != 0
