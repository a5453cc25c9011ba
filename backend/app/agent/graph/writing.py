"""Document → text: YAML as people write it, which `loading` reads back as the same document."""

from __future__ import annotations

import re
from typing import Any

import yaml

from app.agent.graph.loading import Notation

_BREAKS = re.compile("[\r\x85\u2028\u2029]")
"""What else ends a line in YAML: kept only where it is escaped."""


class _Writer(yaml.SafeDumper):
    """Quotes what YAML 1.1 or our notation would read as something else than text; repeats, never refers."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(writer: _Writer, text: str) -> yaml.ScalarNode:
    style = None
    if _BREAKS.search(text):
        style = '"'
    elif "\n" in text and not text.isspace():
        style = "|"
    return writer.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Writer.add_representer(str, _text)
_Writer.yaml_implicit_resolvers = {
    first: [
        *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        *Notation.yaml_implicit_resolvers.get(first, []),
    ]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Notation.yaml_implicit_resolvers}
}


def to_yaml(document: dict[str, Any]) -> str:
    """Keys in the order in which `document` has them; texts of several lines as such."""
    return yaml.dump(document, Dumper=_Writer, allow_unicode=True, sort_keys=False, width=100)
