"""The tutorial's commands are run as they stand there, and print what stands there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import TOP, Step, prints, run, steps_of
from tests.trust.serving import BACKEND, Platform, environment, open_folder

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("curl") is None, reason="the tutorial speaks curl"),
]
TUTORIAL = (TOP / "docs" / "tutorial.md").read_text()
STEPS = [step for step in steps_of(TUTORIAL) if not step.is_make]
MAKE = [step.commands.strip() for step in steps_of(TUTORIAL) if step.is_make]


@pytest.fixture(scope="module")
def model() -> Iterator[str]:
    """The base URL of a server that speaks OpenAI's protocol."""
    command = [sys.executable, "-m", "tests.openai_compatible_double", "--text", "It is EUR 0.42 [1]."]
    with subprocess.Popen(command, cwd=BACKEND, stdout=subprocess.PIPE, text=True) as double:
        assert double.stdout
        try:
            yield double.stdout.readline().strip()
        finally:
            double.terminate()


@pytest.fixture(scope="module")
def platform(model: str) -> Iterator[Platform]:
    with open_folder() as folder:
        platform = Platform(folder / "data", {"ORRERY_EGRESS_ALLOW": urlsplit(model).netloc})
        platform.start()
        try:
            yield platform
        finally:
            platform.stop()


@pytest.fixture(scope="module")
def printed(platform: Platform, model: str, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """What each step printed, by its line."""
    places = {
        "ORRERY_URL": platform.url,
        "MODEL_URL": model,
        "MODEL": "test-model",
        "TMPDIR": str(tmp_path_factory.mktemp("reader")),
        "COLUMNS": "110",
        "PATH": f"{Path(shutil.which('bash') or '').parent}:{os.environ['PATH']}",
    }
    return run(STEPS, environment(platform.data_dir) | places, timeout_s=240)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"line {step.line}")
def test_prints_what_the_page_shows(printed: dict[int, str], step: Step) -> None:
    assert step.line in printed, f"not reached: {list(printed.items())[-1]}"
    assert "(the shell ended with" not in printed[step.line], printed[step.line]
    if step.printed is not None:
        assert prints(step.printed, printed[step.line]), printed[step.line]


def test_is_prepared_as_the_makefile_does_it() -> None:
    """Setting up is what ran before these tests could; the server here is what `make serve` runs."""
    assert MAKE == ["make setup", "make serve"]
    recipes = (TOP / "Makefile").read_text()
    assert re.search(r"^setup:.*\n\t@sh backend/scripts/bootstrap\.sh$", recipes, re.MULTILINE)
    assert re.search(r"^serve: setup.*\n\t@\$\(orrery\) serve \$\(ARGS\)$", recipes, re.MULTILINE)


@pytest.mark.parametrize(
    ("expected", "printed", "same"),
    [
        ("a\n", "a\n", True),
        ("a…c\n", "a b c\n", True),
        ("a…c\n", "a\nc\n", False),
        ("a\n…\nd\n", "a\nb\nc\nd\n", True),
        ("a\n…\nd\n", "a\nd\n", True),
        ("a\n", "a\nb\n", False),
    ],
)
def test_answers_are_compared_line_by_line(expected: str, printed: str, same: bool) -> None:
    assert prints(expected, printed) is same
