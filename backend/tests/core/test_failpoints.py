"""Failpoints: off by default, refused when misspelt, and each action does what it says."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from app.core.config import Settings
from app.core.failpoints import POINTS, FailpointError, arm, failpoint

BACKEND = Path(__file__).resolve().parents[2]
POINT = "intake.begun"


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    arm("")


def used() -> dict[str, list[str]]:
    """The names of all calls of `failpoint` in the product, with the modules they stand in."""
    found: dict[str, list[str]] = {}
    for path in [BACKEND / "main.py", *(BACKEND / "app").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Call(func=ast.Name(id="failpoint"), args=[ast.Constant(value=str(name)), *_]):
                    found.setdefault(name, []).append(path.name)
    return found


class TestRegistry:
    def test_names_exactly_the_points_in_the_code(self) -> None:
        assert set(used()) == set(POINTS)

    def test_has_each_point_at_one_place(self) -> None:
        assert [name for name, places in used().items() if len(places) > 1] == []


class TestSetting:
    @pytest.mark.parametrize(
        ("setting", "said"),
        [
            ("intake.begin=kill", "valid: delete.marking, drain.claimed"),
            (f"{POINT}=explode", "valid: kill, error, sleep, hang, pause"),
            (POINT, "point[@text]=action[:argument]"),
            (f"{POINT}=kill:0", "from 1"),
            (f"{POINT}=kill:soon", "from 1"),
            (f"{POINT}=sleep", "takes seconds"),
            (f"{POINT}=error:x", "how many hits"),
            (f"{POINT}=hang:1", "no argument"),
            (f"{POINT}=pause", "path of a file"),
            (f"{POINT}=error;nowhere=kill", "there is no failpoint 'nowhere'"),
        ],
    )
    def test_that_is_wrong_keeps_the_platform_from_starting(
        self, monkeypatch: pytest.MonkeyPatch, setting: str, said: str
    ) -> None:
        monkeypatch.setenv("ORRERY_FAILPOINTS", setting)
        with pytest.raises(ValidationError) as caught:
            Settings(_env_file=None)
        assert said in str(caught.value)

    def test_is_told_in_the_log(self) -> None:
        with capture_logs() as logs:
            arm(f"{POINT}=sleep:0;queue.woken=error")
        (line,) = logs
        assert (line["log_level"], line["points"]) == ("warning", [POINT, "queue.woken"])

    def test_is_empty_by_default(self) -> None:
        assert Settings(_env_file=None).failpoints == ""
        with capture_logs() as logs:
            arm("")
        assert logs == []


class TestActions:
    def test_error_is_raised_only_at_its_point(self) -> None:
        arm(f"{POINT}=error")
        failpoint("intake.registered")
        with pytest.raises(FailpointError, match=POINT):
            failpoint(POINT)

    def test_error_stops_after_the_given_number(self) -> None:
        arm(f"{POINT}=error:1")
        with pytest.raises(FailpointError):
            failpoint(POINT)
        failpoint(POINT)

    def test_concern_only_hits_about_the_given_text(self) -> None:
        arm("ingest.begun@report=error")
        failpoint("ingest.begun", "letter.pdf")
        with pytest.raises(FailpointError):
            failpoint("ingest.begun", "report-7.pdf")

    def test_sleep_freezes_the_process(self) -> None:
        arm(f"{POINT}=sleep:0.1")
        began = time.monotonic()
        failpoint(POINT)
        assert time.monotonic() - began >= 0.1

    def test_kill_waits_for_its_hit(self) -> None:
        process = run(f"{POINT}=kill:3", f"for n in range(5): print(n, flush=True); failpoint({POINT!r})")
        out, _ = process.communicate(timeout=60)
        assert process.returncode == -signal.SIGKILL
        assert out.split() == ["0", "1", "2"]

    def test_hang_stands_still(self) -> None:
        process = run(f"{POINT}=hang", f"print('before', flush=True); failpoint({POINT!r}); print('after')")
        assert process.stdout
        assert process.stdout.readline() == "before\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.kill()
        process.communicate()

    def test_pause_goes_on_when_it_is_let_go(self, tmp_path: Path) -> None:
        gate, held = tmp_path / "gate", tmp_path / "gate.held"
        gate.touch()
        process = run(f"{POINT}=pause:{gate}", f"failpoint({POINT!r}); print('on', flush=True)")
        while not (held.exists() and held.read_text()):
            assert process.poll() is None
            time.sleep(0.01)
        assert int(held.read_text()) == process.pid
        held.unlink()
        assert process.communicate(timeout=60) == ("on\n", None)

    def test_pause_passes_where_nobody_waits(self, tmp_path: Path) -> None:
        arm(f"{POINT}=pause:{tmp_path / 'gate'}")
        failpoint(POINT)
        assert os.listdir(tmp_path) == []


QUIET = "import structlog; structlog.configure(logger_factory=structlog.ReturnLoggerFactory())"


def run(setting: str, code: str) -> subprocess.Popen[str]:
    program = f"{QUIET}\nfrom app.core.failpoints import arm, failpoint\narm({setting!r})\n{code}"
    command = [sys.executable, "-c", program]
    return subprocess.Popen(command, cwd=BACKEND, stdout=subprocess.PIPE, stderr=None, text=True)
