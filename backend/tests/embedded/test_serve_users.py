"""`orrery serve` as an ordinary user in a private home: it works, and the home stays private."""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import psutil
import pytest

from tests.embedded.mounts import bound, inside, needs_mounts
from tests.embedded.served import children, hand_in, ready
from tests.trust.serving import BACKEND, Platform, environment, eventually

pytestmark = [
    needs_mounts,
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not all(map(shutil.which, ("useradd", "userdel", "setpriv"))),
        reason="making a user takes useradd, userdel and setpriv",
    ),
]


@dataclass(slots=True)
class OfUser(Platform):
    """Python, its packages and ours are mounted where that user can read them."""

    user: str = ""

    def start(self) -> None:
        entry = pwd.getpwnam(self.user)
        home = Path(entry.pw_dir)
        shown = {
            Path(sys.base_prefix): home.parent / "python",
            Path(sys.prefix) / "lib": home.parent / "lib",
            BACKEND: home.parent / "backend",
        }
        for target in shown.values():
            target.mkdir(exist_ok=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        packages = shown[Path(sys.prefix) / "lib"] / version / "site-packages"
        python = shown[Path(sys.base_prefix)] / "bin" / version
        become = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        command = [*become, python, "-m", "app.cli", "serve", "--port", "0", "--no-worker"]
        found_there = {
            "HOME": str(home),
            "PYTHONPATH": f"{shown[BACKEND]}:{packages}",
            "LD_LIBRARY_PATH": str(shown[Path(sys.base_prefix)] / "lib"),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                inside([bound(folder, target) for folder, target in shown.items()], command),
                cwd=home,
                env=environment(self.data_dir, **found_there, **self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def serves(self) -> bool:
        assert self.running, self.log.read_text()[-2000:]
        return ready(self) == (200, "ok")

    @property
    def log(self) -> Path:
        return self.data_dir.parents[1] / "serve.log"


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pwd.struct_passwd]:
    """With a home of mode 0700; gone afterwards."""
    name = f"orrery-{uuid4().hex[:8]}"
    parent = Path("/tmp") / name  # not below pytest's folder, which nobody else may enter
    parent.mkdir(mode=0o755)
    parent.chmod(0o755)
    made = ["useradd", "--create-home", "--home-dir", parent / "home", "--shell", "/bin/false", name]
    subprocess.run(made, check=True, capture_output=True)
    (parent / "home").chmod(0o700)
    try:
        yield pwd.getpwnam(name)
    finally:
        subprocess.run(["userdel", name], check=True, capture_output=True)
        shutil.rmtree(parent)


@pytest.fixture(scope="module")
def served(user: pwd.struct_passwd) -> Iterator[OfUser]:
    platform = OfUser(Path(user.pw_dir) / "data", user=user.pw_name)
    platform.start()
    try:
        eventually(lambda: platform.serves(), within_s=90)
        yield platform
    finally:
        platform.stop()


class TestOrdinaryUser:
    def test_serves_and_stores(self, served: OfUser) -> None:
        with served.client() as client:
            assert hand_in(client, "notes", "one", "A lantern.").status_code == 202

    def test_runs_everything_as_that_user(self, served: OfUser, user: pwd.struct_passwd) -> None:
        assert served.process
        family = [psutil.Process(served.process.pid), *children(served)]
        assert len(family) > 3
        assert {process.uids().real for process in family} == {user.pw_uid}

    def test_keeps_all_data_in_the_data_folder(self, served: OfUser, user: pwd.struct_passwd) -> None:
        assert (served.data_dir / "postgres" / "PG_VERSION").exists()
        assert not (served.data_dir / "postgres").is_symlink()

    def test_leaves_home_and_files_private(self, served: OfUser, user: pwd.struct_passwd) -> None:
        home = Path(user.pw_dir)
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert stat.S_IMODE(served.data_dir.stat().st_mode) == 0o700
        assert {path.stat().st_uid for path in files(served.data_dir)} == {user.pw_uid}
        secret = [served.data_dir / name for name in ("secrets", "run", "logs")]
        bits = {path: path.stat().st_mode & 0o077 for top in secret for path in [top, *files(top)]}
        assert set(bits.values()) == {0}, bits
        assert stat.S_IMODE((served.data_dir / "blobs").stat().st_mode) == 0o700

    def test_does_not_hand_the_processes_its_environment(self, served: OfUser) -> None:
        names = {p.name() for p in children(served) if "HOME" in p.environ()}
        assert names == set()


def files(top: Path) -> list[Path]:
    return [Path(folder) / name for folder, _, names in os.walk(top) for name in names]
