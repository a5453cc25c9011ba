"""The static half of `make check`: what it prints, and that it stops at the first failure."""

from __future__ import annotations

import sys
import time

import pytest

from scripts import check

GOOD = (sys.executable, "-c", "pass")
BAD = (sys.executable, "-c", "print('the reason'); raise SystemExit(3)")
SLOW = (sys.executable, "-c", "import time; time.sleep(60)")


class TestMain:
    def test_prints_each_step_with_its_duration(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(check, "STEPS", {"types": GOOD, "lint": GOOD})
        assert check.main() == 0
        lines = capfd.readouterr().out.splitlines()
        assert sorted(line.split()[1] for line in lines[:2]) == ["lint", "types"]
        assert all(line.endswith(" s") for line in lines[:2])

    def test_stops_at_the_first_failure_and_says_why(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(check, "STEPS", {"types": SLOW, "lint": BAD, "imports": SLOW})
        start = time.monotonic()
        assert check.main() == 1
        assert time.monotonic() - start < 30
        out = capfd.readouterr().out
        assert "== lint\nthe reason\n" in out
        assert out.splitlines()[-1].startswith("check: 'lint' failed after ")
