"""`docs/models.md`: its requests are taken, its settings exist."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx2

from app.cli.setting_names import unknown_settings
from app.core.config import Settings
from tests.api.calls import ok

PAGE = (Path(__file__).parents[3] / "docs" / "models.md").read_text()
REQUESTS = re.findall(r"^`POST (\S+)`\n```json\n(.*?)\n```", PAGE, re.DOTALL | re.MULTILINE)


async def test_requests_are_taken_in_their_order(client: httpx2.AsyncClient) -> None:
    assert len(REQUESTS) == 4
    for path, body in REQUESTS:
        ok(await client.post(path, json=json.loads(body)), 201)
    found = ok(await client.get("/api/v1/models/default-chat/resolve"))
    assert (found["source"], found["model"], found["connection"]) == ("registry", "gpt-5-mini", "vendor")


def test_settings_exist() -> None:
    ours = set(re.findall(r"ORRERY_[A-Z_]+[A-Z]", PAGE))
    assert len(ours) >= 4
    assert unknown_settings(dict.fromkeys(ours, "")) == {}


def test_defaults_are_those_that_hold() -> None:
    assert f"({Settings.model_fields['model_cache_s'].default} s)" in PAGE
