"""One platform for all guarantees: first the demo runs on its empty folder, then it is served."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.trust.gates import Gates
from tests.trust.serving import Platform, open_folder, orrery, processes_in
from tests.trust.storm import gates_of, stormy_settings


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    with open_folder() as folder:
        yield folder


@dataclass(frozen=True, slots=True)
class FirstDemo:
    """`orrery demo` on an empty data folder, and the processes that were left of it."""

    done: subprocess.CompletedProcess[str]
    left: list[str]


@pytest.fixture(scope="session")
def first_demo(folder: Path) -> FirstDemo:
    done = orrery(["demo"], folder / "data", COLUMNS="200")
    return FirstDemo(done, list(processes_in(folder)))


@pytest.fixture(scope="session")
def served(folder: Path, first_demo: FirstDemo) -> Iterator[Platform]:
    platform = Platform(folder / "data", stormy_settings(folder))
    platform.start()
    try:
        yield platform
    finally:
        gates_of(platform).open_all()
        if platform.running:
            platform.stop()


@pytest.fixture
def gates(platform: Platform) -> Iterator[Gates]:
    gates = gates_of(platform)
    yield gates
    gates.open_all()


@pytest.fixture
def platform(served: Platform) -> Platform:
    """Running, also when the test before has killed it."""
    if not served.running:
        served.start()
    return served
