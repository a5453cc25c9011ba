"""`docs/agents.md`: its commands are run as they stand there, its settings exist."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from app.cli.setting_names import unknown_settings
from app.core.config import Settings
from tests.docs.pages import TOP, prints, run, steps_of
from tests.graphs import HELLO_GRAPH
from tests.trust.serving import Platform, environment, open_folder

PAGE = (TOP / "docs" / "agents.md").read_text()


def test_commands_print_what_is_said() -> None:
    with open_folder() as folder:
        platform = Platform(folder / "data")
        platform.start()
        try:
            with platform.client() as client:
                body = {"name": "Greeter", "slug": "greeter", "graph": HELLO_GRAPH}
                client.post("/agents", json=body).raise_for_status()
                client.post("/agents/greeter/publish").raise_for_status()
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            steps = steps_of(PAGE)
            printed = run(steps, environment(platform.data_dir) | {"PATH": path}, timeout_s=110)
        finally:
            platform.stop()
    assert steps
    for step in steps:
        assert step.printed
        assert prints(step.printed, printed[step.line]), printed[step.line]


def test_settings_exist_with_their_defaults() -> None:
    assert unknown_settings(dict.fromkeys(re.findall(r"ORRERY_[A-Z_]+[A-Z]", PAGE), "")) == {}
    assert f"{Settings.model_fields['max_yaml_bytes'].default:,} bytes" in PAGE.replace("\n", " ")
