"""`docs/runs.md`: its settings, defaults, states and events are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from app.agent.core.events import PAYLOADS
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.ports import Undeliverable
from app.cli.setting_names import unknown_settings
from app.core.config import Settings
from app.core.errors import AppError
from app.db.postgres.models.agents import RunMode, RunStatus

PAGE = (Path(__file__).parents[3] / "docs" / "runs.md").read_text()
SETTINGS = set(re.findall(r"ORRERY_[A-Z_]+[A-Z]", PAGE))
DEFAULTS = re.findall(r"`ORRERY_([A-Z_]+)` \((\d+)", PAGE)


def test_settings_exist() -> None:
    assert unknown_settings(dict.fromkeys(SETTINGS, "")) == {}


@pytest.mark.parametrize(("setting", "value"), DEFAULTS)
def test_defaults_are_those_that_hold(setting: str, value: str) -> None:
    assert Settings.model_fields[setting.lower()].default == float(value)


def test_keys_are_kept_as_long_as_it_says() -> None:
    hours = re.search(r"for (\d+) h", PAGE)
    assert hours is not None
    assert Settings.model_fields["idempotency_retention_s"].default == int(hours[1]) * 3600


@pytest.mark.parametrize("name", [*PAYLOADS, *RunStatus, *RunMode])
def test_names_every(name: str) -> None:
    assert f"`{name}`" in PAGE


@pytest.mark.parametrize("error", [Undeliverable, InvalidGraph])
def test_names_codes_of_runs_that_no_node_failed(error: type[AppError]) -> None:
    assert f"| `{error.code}` |" in PAGE
