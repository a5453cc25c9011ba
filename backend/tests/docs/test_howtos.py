"""The pages about testing, failures and sub-agents: their commands are run, their graphs are compiled."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.setting_names import unknown_settings
from app.core.config import Settings
from tests.agent.documents import issues
from tests.docs.pages import TOP, prints, run, steps_of
from tests.graphs import HELLO_GRAPH
from tests.trust.serving import Platform, environment, open_folder

PAGES = {
    name: (TOP / "docs" / f"{name}.md").read_text() for name in ("testing-agents", "failures", "sub-agents")
}
EXAMPLES = [
    pytest.param(kind, text, id=f"{name}-{number}")
    for name, page in PAGES.items()
    for number, (kind, text) in enumerate(
        re.findall(r"^```json (node|graph)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    )
]
AROUND: dict[str, Any] = {
    "schema_version": "1",
    "inputs": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
    "bindings": {"models": {"main": "default-chat"}, "agents": {"reviewer": "strict-reviewer"}},
}


def around(node: dict[str, Any]) -> dict[str, Any]:
    return {
        "nodes": [{"id": "start", "type": "start"}, node, {"id": "done", "type": "end"}],
        "edges": [{"source": "start", "target": node["id"]}, {"source": node["id"], "target": "done"}],
    }


@pytest.mark.parametrize(("kind", "text"), EXAMPLES)
def test_examples_compile(kind: str, text: str) -> None:
    found = json.loads(text)
    assert issues(AROUND | (around(found) if kind == "node" else found)) == []


def test_commands_of_testing_print_what_is_said() -> None:
    with open_folder() as folder:
        platform = Platform(folder / "data")
        platform.start()
        try:
            with platform.client() as client:
                body = {"name": "Greeter", "slug": "greeter", "graph": HELLO_GRAPH}
                client.post("/agents", json=body).raise_for_status()
                client.post("/agents/greeter/publish").raise_for_status()
            path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            steps = steps_of(PAGES["testing-agents"])
            printed = run(steps, environment(platform.data_dir) | {"PATH": path}, timeout_s=110)
        finally:
            platform.stop()
    assert steps
    for step in steps:
        assert step.printed
        assert prints(step.printed, printed[step.line]), printed[step.line]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_settings_exist_with_their_defaults(page: str) -> None:
    assert unknown_settings(dict.fromkeys(re.findall(r"ORRERY_[A-Z_]+[A-Z]", page), "")) == {}
    for name, value in re.findall(r"`ORRERY_([A-Z_]+)` \((\d+)", page):
        assert Settings.model_fields[name.lower()].default == int(value)
