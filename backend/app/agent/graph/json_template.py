"""JSON values whose strings may hold references, at any depth."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, JsonValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.agent.graph.references import Lookup, Template, TemplateError, parse

Path = tuple[str | int, ...]
Node = Any
"""A parsed value: `Template` for each string, otherwise the same lists, objects and scalars."""


@dataclass(frozen=True, slots=True)
class JsonTemplate:
    """Compares and dumps as `source`."""

    source: JsonValue
    parsed: Node

    def value(self, lookup: Lookup) -> Any:
        """The same value with every template replaced; one that is exactly one chain keeps its type."""
        return _fill(self.parsed, lookup)

    def templates(self) -> Iterator[tuple[Path, Template]]:
        """Every template with its place below this value, in order."""
        return _templates(self.parsed, ())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _validated,
            handler.generate_schema(JsonValue),
            serialization=core_schema.plain_serializer_function_ser_schema(_source),
        )


def _source(template: JsonTemplate) -> JsonValue:
    return template.source


def _validated(value: JsonValue) -> JsonTemplate:
    return JsonTemplate(value, _parse(value, ()))


def _parse(value: JsonValue, path: Path) -> Node:
    if isinstance(value, dict):
        return {key: _parse(item, (*path, key)) for key, item in value.items()}
    if isinstance(value, list):
        return [_parse(item, (*path, index)) for index, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    try:
        return parse(value)
    except TemplateError as error:
        raise PydanticCustomError(
            "invalid_reference",
            "{problem} at character {position}",
            {"problem": error.message, "position": error.position, "path": list(path)},
        ) from error


def _fill(node: Node, lookup: Lookup) -> Any:
    if isinstance(node, Template):
        return node.value(lookup)
    if isinstance(node, dict):
        return {key: _fill(item, lookup) for key, item in node.items()}
    if isinstance(node, list):
        return [_fill(item, lookup) for item in node]
    return node


def _templates(node: Node, path: Path) -> Iterator[tuple[Path, Template]]:
    if isinstance(node, Template):
        yield path, node
    elif isinstance(node, dict):
        for key, item in node.items():
            yield from _templates(item, (*path, key))
    elif isinstance(node, list):
        for index, item in enumerate(node):
            yield from _templates(item, (*path, index))
