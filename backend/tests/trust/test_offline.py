"""No telemetry: the main job with the network closed, and nobody even tries to get out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.core.telemetry import SWITCHES
from tests.trust.closed import NOT_PERMITTED
from tests.trust.serving import BACKEND, open_folder

pytestmark = pytest.mark.timeout(240)
RECORDER = Path(__file__).parent / "recorder"


def closed(command: Sequence[str], calls: Path) -> subprocess.CompletedProcess[str]:
    """Runs Python in a namespace without network; skips the test where there can be none."""
    if sys.platform != "linux":
        pytest.skip("network namespaces are Linux's")
    kept = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        [sys.executable, "-m", "tests.trust.closed", sys.executable, *command],
        cwd=BACKEND,
        env=kept | {"PYTHONPATH": f"{RECORDER}:{BACKEND}", "CALLS_LOG": str(calls)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == NOT_PERMITTED:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@dataclass(frozen=True, slots=True)
class Outcome:
    told: dict[str, Any]
    calls: str


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """Of the main job with the network closed."""
    with open_folder() as folder:
        calls = folder / "calls.log"
        done = closed(["-m", "tests.trust.main_job", str(folder / "data")], calls)
        return Outcome(json.loads(done.stdout), calls.read_text() if calls.exists() else "")


class TestMainJob:
    def test_works(self, outcome: Outcome) -> None:
        assert "harbour master" in outcome.told["found"]
        assert "harbour master" in outcome.told["answer"]
        assert outcome.told["code"] == 0

    def test_makes_no_packet_that_wants_out(self, outcome: Outcome) -> None:
        assert set(outcome.told["attempts"].values()) == {0}

    def test_looks_nobody_up_and_connects_to_nobody(self, outcome: Outcome) -> None:
        assert outcome.calls == ""

    def test_sends_no_traces_though_the_environment_asks_for_it(self, outcome: Outcome) -> None:
        assert outcome.told["traces"] == 0


class TestWatch:
    """What would be seen if somebody tried."""

    @pytest.mark.parametrize(
        ("attempt", "seen"),
        [
            ("socket.create_connection(('192.0.2.7', 443), 1)", "socket.connect 192.0.2.7"),
            ("socket.create_connection(('2606:4700::7', 443), 1)", "socket.connect 2606:4700::7"),
            ("socket.getaddrinfo('telemetry.example', 443)", "socket.getaddrinfo telemetry.example"),
            ("uvloop.run(asyncio.open_connection('192.0.2.7', 443))", ""),  # in C: only the kernel sees it
        ],
    )
    def test_sees_every_attempt(self, tmp_path: Path, attempt: str, seen: str) -> None:
        code = (
            "import asyncio, contextlib, json, socket, uvloop\n"
            "from tests.trust.closed import attempts\n"
            f"with contextlib.suppress(OSError): {attempt}\n"
            "print(json.dumps(attempts()))"
        )
        calls = tmp_path / "calls.log"
        done = closed(["-c", code], calls)
        assert sum(json.loads(done.stdout).values()) > 0
        assert seen in (calls.read_text() if calls.exists() else "")


class TestSwitches:
    @pytest.mark.parametrize("name", sorted(SWITCHES))
    def test_are_off_whatever_the_environment_says(self, name: str) -> None:
        loud = os.environ | {name: "true" if SWITCHES[name] == "false" else "0"}
        code = f"import app, os; print(os.environ[{name!r}])"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=BACKEND, env=loud, capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == SWITCHES[name]
