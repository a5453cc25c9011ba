"""Data folders that cannot be used, and programs that cannot be executed where they are."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from signal import SIGTERM

import pytest

from app.core.errors import Misconfigured
from app.embedded.places import make_data_folder
from app.embedded.process import Command, launch
from tests.embedded.mounts import bound, inside, needs_mounts

HOLD_OPEN = Path(__file__).with_name("hold_open.py")


def hold_open(mounts: Sequence[str], data: Path, system: Path) -> tuple[str, str]:
    """What a process says that opens the services where `mounts` were done: output, last line of errors."""
    command = inside(mounts, [sys.executable, HOLD_OPEN, data, system])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    first = process.stdout.readline()
    process.terminate()  # it then closes what it opened
    _, err = process.communicate(timeout=110)
    return first, (err.strip().splitlines() or [""])[-1]


class TestDataFolder:
    def test_that_is_a_file_is_refused(self, folder: Path):
        (folder / "data").touch()
        with pytest.raises(Misconfigured, match="is a file: move it away, or set ORRERY_DATA_DIR"):
            make_data_folder(folder / "data")

    def test_that_links_to_nowhere_is_refused_and_nothing_is_made_there(self, folder: Path):
        (folder / "data").symlink_to(folder / "unmounted" / "disk")
        with pytest.raises(Misconfigured, match=r"is a link to .*, which does not exist: mount"):
            make_data_folder(folder / "data")
        assert not (folder / "unmounted").exists()

    def test_that_links_to_a_folder_is_used(self, folder: Path):
        (folder / "real").mkdir()
        (folder / "data").symlink_to(folder / "real")
        assert make_data_folder(folder / "data") == folder / "real"

    @needs_mounts
    def test_that_is_read_only_is_named_with_the_way_out(self, folder: Path, system_dir: Path):
        (folder / "data").mkdir()
        said, error = hold_open([bound(folder, folder, "ro")], folder / "data", system_dir)
        assert said == ""
        assert "Read-only file system" in error
        assert "set ORRERY_DATA_DIR to a folder of this user" in error

    @needs_mounts
    def test_need_not_be_executable(self, template: Path, folder: Path, system_dir: Path):
        subprocess.run(["cp", "-a", template, folder / "data"], check=True)
        said, error = hold_open([bound(folder, folder, "noexec")], folder / "data", system_dir)
        assert "migration_url" in said, error


class TestPrograms:
    @needs_mounts
    def test_on_a_noexec_file_system_say_so(self, template: Path, folder: Path, system_dir: Path):
        subprocess.run(["cp", "-a", template, folder / "data"], check=True)
        said, error = hold_open([bound(system_dir, system_dir, "noexec")], folder / "data", system_dir)
        assert said == ""
        assert "mounted noexec: move Orrery to another or mount that one with exec" in error

    @pytest.mark.parametrize(
        ("content", "remedy"),
        [
            (b"\x7fELF of another machine", "built for another kind of machine: install the packages again"),
            (None, "install the packages again"),
        ],
        ids=["another machine", "missing"],
    )
    async def test_that_cannot_be_executed_say_why(self, folder: Path, content: bytes | None, remedy: str):
        program = folder / "redis-server"
        if content:
            program.write_bytes(content)
            program.chmod(0o755)
        command = Command(
            argv=(str(program),), cwd=folder, log=folder / "log", account=None, death_signal=SIGTERM
        )
        with pytest.raises(Misconfigured, match=f"{remedy}.*ORRERY_REDIS_URL"):
            launch(command)
