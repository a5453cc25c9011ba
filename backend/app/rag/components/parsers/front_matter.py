"""Front matter of Markdown: YAML between `---` lines or TOML between `+++` lines, as plain values."""

from __future__ import annotations

import re
import tomllib
from typing import Any, Final

import yaml

from app.rag.components.parsers.draft import clean

_YAML = re.compile(r"---[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_TOML = re.compile(r"\+\+\+[ \t]*\n(.*?)^\+\+\+[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_MAX_CHARS: Final = 64 * 1024
_MAX_DEPTH: Final = 5
_MAX_ITEMS: Final = 200
_MAX_BRACKETS: Final = 500  # the YAML reader's time grows with the square of how deep they nest


def split_front_matter(text: str) -> tuple[dict[str, Any], str]:
    """The values of the front matter, and the text after it. What is not a mapping stays text."""
    for pattern, read in ((_YAML, _read_yaml), (_TOML, _read_toml)):
        found = pattern.match(text)
        if found and len(found[1]) <= _MAX_CHARS:
            values = read(found[1])
            if isinstance(values, dict):
                return _plain(values, 0), text[found.end() :]
    return {}, text


def _read_yaml(source: str) -> Any:
    if source.count("[") + source.count("{") > _MAX_BRACKETS:
        return None
    try:
        # An alias is a reference here but a copy in JSON: nine lines of them would fill the memory.
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(source, yaml.SafeLoader)):
            return None
        return yaml.safe_load(source)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None


def _read_toml(source: str) -> Any:
    try:
        return tomllib.loads(source)
    except (ValueError, RecursionError):
        return None


def _plain(value: Any, depth: int) -> Any:
    """`value` as JSON knows it: dates and everything unknown as text, nothing deep or endless."""
    if isinstance(value, dict) and depth < _MAX_DEPTH:
        items = list(value.items())[:_MAX_ITEMS]
        return {clean(str(key)): _plain(item, depth + 1) for key, item in items}
    if isinstance(value, list) and depth < _MAX_DEPTH:
        return [_plain(item, depth + 1) for item in value[:_MAX_ITEMS]]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float) and abs(value) < 2**53:
        return value
    return clean(value.isoformat() if hasattr(value, "isoformat") else str(value))
