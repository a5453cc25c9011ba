"""`docs/tools.md`: its requests are taken, its graph runs, its settings exist with these defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2

from app.agent.tools.kind import TOOL_KINDS
from app.cli.setting_names import unknown_settings
from app.core.config import Settings
from tests.api.calls import API, new_agent, ok

PAGE = (Path(__file__).parents[3] / "docs" / "tools.md").read_text()
REQUESTS = re.findall(r"^`POST (\S+)`\n```json\n(.*?)\n```", PAGE, re.DOTALL | re.MULTILINE)
GRAPH = json.loads(re.findall(r'^```json\n(\{"schema_version".*?)\n```', PAGE, re.DOTALL | re.MULTILINE)[0])


async def test_requests_are_taken_and_the_graph_runs(client: httpx2.AsyncClient) -> None:
    assert len(REQUESTS) == 4
    for path, body in REQUESTS:
        assert ok(await client.post(path, json=json.loads(body)), 201)["unusable"] == []
    agent = await new_agent(client, GRAPH)
    run = ok(await client.post(f"{API}/agents/{agent}/runs", json={"input": {"sum": "6 * 7"}}))
    assert run["output"] == {"result": 42}


def test_every_kind_is_told() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == set(TOOL_KINDS)


def test_settings_exist_with_their_defaults() -> None:
    told = re.findall(r"`(ORRERY_[A-Z_]+)`\s\((\d+)\)", PAGE)
    assert len(told) == 5
    assert unknown_settings(dict.fromkeys((name for name, _ in told), "")) == {}
    for name, default in told:
        assert Settings.model_fields[name.removeprefix("ORRERY_").lower()].default == float(default)
