"""The static steps of `make check`, side by side; the first one that fails ends the others."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

BACKEND = Path(__file__).resolve().parents[1]

# The longest first: what follows it fits beside it.
STEPS: Mapping[str, tuple[str, ...]] = {
    "types": (sys.executable, "-m", "mypy", "--num-workers", "2", "main.py", "app", "scripts", "benchmarks"),
    "format": (sys.executable, "-m", "ruff", "format", "--check", "--output-format", "concise", "."),
    "lint": (sys.executable, "-m", "ruff", "check", "."),
    "imports": (str(Path(sys.executable).with_name("lint-imports")), "--no-logo"),
    "house": (sys.executable, "scripts/lint.py"),
    "licences": (sys.executable, "scripts/licences.py"),
    "requirements": ("sh", "scripts/export_requirements.sh", "--check"),
}


@dataclass(frozen=True, slots=True)
class Result:
    step: str
    status: int
    output: str
    duration_s: float


@dataclass(slots=True)
class Steps:
    """Runs the steps in `BACKEND`, each in its thread; after `stop()` none is running and none starts."""

    lock: Lock = field(default_factory=Lock)
    started: list[subprocess.Popen[str]] = field(default_factory=list)
    stopped: bool = False

    def start(self, step: str) -> subprocess.Popen[str] | None:
        with self.lock:
            if self.stopped:
                return None
            process = subprocess.Popen(
                STEPS[step], cwd=BACKEND, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
            self.started.append(process)
            return process

    def run(self, step: str) -> Result | None:
        """What came of a step; None if it was stopped before it started."""
        began = time.monotonic()
        process = self.start(step)
        if process is None:
            return None
        output, _ = process.communicate()
        return Result(step, process.returncode, output, time.monotonic() - began)

    def stop(self) -> None:
        with self.lock:
            self.stopped = True
            for process in self.started:
                process.terminate()


def main() -> int:
    """Print one line per step with its duration; exit status 1 at the first failure, with its output."""
    steps = Steps()
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        for future in as_completed([pool.submit(steps.run, step) for step in STEPS]):
            result = future.result()
            if result is None:
                continue
            if result.status:
                steps.stop()
                print(f"\n== {result.step}\n{result.output}", flush=True)
                print(f"check: {result.step!r} failed after {result.duration_s:.1f} s")
                return 1
            print(f"== {result.step:<12} {result.duration_s:5.1f} s", flush=True)
    print("== tests", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
