"""Markdown of the reference: tables, and JSON Schemas in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from app.agent.graph.checks.words import in_words
from scripts.reference.graphs import as_yaml

Schema = Mapping[str, Any]
Pages = dict[str, str]
"""Text by its path below `docs/reference`."""

GENERATED = "[//]: # (Made of the code by backend/scripts/generate_reference.py: change that, not this page.)"
_FORMATS = {"template": "a text with references", "expression": "an expression"}


def page(title: str, *paragraphs: str) -> str:
    return "\n\n".join([f"# {title}", GENERATED, *filter(None, paragraphs)]) + "\n"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(value: Any) -> str:
    """A value, or words of a language, between backticks."""
    return f"`{value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)}`"


def yaml_block(document: Any) -> str:
    text = document if isinstance(document, str) else as_yaml(document)
    return f"```yaml\n{text}```"


def sentence(docstring: str) -> str:
    """The first paragraph, in one line."""
    return " ".join(docstring.split("\n\n")[0].split())


def fields(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """A table of the properties of an object."""
    required = schema.get("required", ())
    rows = [
        (code(name), said(field, definitions), _usual(field, name in required), _about(field))
        for name, field in schema.get("properties", {}).items()
    ]
    return table(("Key", "Takes", "If absent", ""), rows)


def shapes(schema: Schema) -> Iterator[str]:
    """A section for each object that has a name, in the order of their first mention."""
    definitions: Mapping[str, Schema] = schema.get("$defs", {})
    for name, shape in definitions.items():
        if shape.get("properties"):
            yield f"### {name}"
            yield shape.get("description", "")
            yield fields(shape, definitions)


def said(schema: Schema, definitions: Mapping[str, Schema]) -> str:
    """What a place takes or gives, in a few words."""
    if reference := schema.get("$ref"):
        name = reference.rpartition("/")[2]
        shape = definitions[name]
        return _link(name) if shape.get("properties") else said(shape, definitions)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " or ".join(dict.fromkeys(said(c, definitions) for c in choices if c.get("type") != "null"))
    if schema.get("format") in _FORMATS:
        return _FORMATS[schema["format"]]
    if schema.get("properties") and "title" in schema:
        return _link(schema["title"])
    if "$ref" in schema.get("items", {}):
        return f"a list of {said(schema['items'], definitions)}"
    each = schema.get("additionalProperties")
    of = said(each, definitions) if isinstance(each, Mapping) else ""
    return in_words([schema]) + (f", each {of}" if of and of != "any value" else "")


def _link(name: str) -> str:
    return f"[`{name}`](#{name.lower()})"


def _usual(field: Schema, required: bool) -> str:
    if required:
        return "**required**"
    default = field.get("default")
    return "" if default is None else code(default)


def _about(field: Schema) -> str:
    return " ".join(str(field.get("description", "")).split())
