"""Settings that are lists: separated by commas, as people write them, or JSON, as programs do."""

from __future__ import annotations

import json


def entries(value: object) -> list[object]:
    """The entries of a setting, without empty ones; texts lose the space around them.

    Raises:
        ValueError: it is no list; says what to write.
    """
    found = _of_text(value) if isinstance(value, str) else value
    if not isinstance(found, list | tuple):
        raise ValueError("write entries separated by commas, or a JSON list")
    stripped = [entry.strip() if isinstance(entry, str) else entry for entry in found]
    return [entry for entry in stripped if entry != ""]


def _of_text(text: str) -> list[object]:
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    return found if isinstance(found, list) else [*text.split(",")]
