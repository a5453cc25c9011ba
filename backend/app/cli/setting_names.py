"""Which `ORRERY_*` variables there are, and which of those that are set nobody reads."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches

import structlog
from dotenv import dotenv_values

from app.core.config import Settings

PREFIX = "ORRERY_"
_NOT_SETTINGS = ("API_KEY", "URL", "WORKER_ID", "SEED")
"""What the command line, the workers and the tests read besides the settings."""

logger = structlog.get_logger(__name__)


def given_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """The `ORRERY_*` variables of the environment and of `.env`, by name."""
    found = {name.upper(): value for name, value in (dotenv_values(".env") | dict(environment)).items()}
    return {name: found[name] or "" for name in sorted(found) if name.startswith(PREFIX)}


def unknown_settings(given: Mapping[str, str]) -> dict[str, str]:
    """Names that do not exist, each with the nearest that does; empty where none is near."""
    names = [*(name.upper() for name in Settings.model_fields), *_NOT_SETTINGS]
    valid = sorted(PREFIX + name for name in names)
    near = {name: get_close_matches(name, valid, n=1, cutoff=0.6) for name in given if name not in valid}
    return {name: found[0] if found else "" for name, found in near.items()}


def warn_of_unknown_settings(environment: Mapping[str, str]) -> None:
    """One line in the log that names them all."""
    unknown = unknown_settings(given_settings(environment))
    if unknown:
        said = [f"{name} (did you mean {near}?)" if near else name for name, near in unknown.items()]
        logger.warning("unknown_settings_ignored", names=", ".join(said))
