"""What a node's configuration refers to: its templates with their places, and its bound names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from app.agent.core.base import BindingKind, Binds, Expects, NodeConfig
from app.agent.core.value_types import ValueType
from app.agent.graph.expressions import Expression
from app.agent.graph.issues import Path
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.references import Template, TemplateError, parse


@dataclass(frozen=True, slots=True)
class Use:
    """A template in a configuration; `expected` is None where any value will do.

    The references of an `expression` stand in `template`; `expected` is the type of its value.
    """

    path: Path
    template: Template
    expected: ValueType | None = None
    expression: Expression | None = None


def uses_in(config: BaseModel) -> Iterator[Use]:
    """Every template of a configuration, in field order."""
    for name, expected in _fields(type(config)):
        yield from _uses(getattr(config, name), (name,), expected)


def uses_in_raw(value: Any) -> Iterator[Use]:
    """The templates that parse in a configuration whose shape is wrong."""
    todo: list[tuple[Path, Any]] = [((), value)]
    while todo:
        path, part = todo.pop()
        if isinstance(part, dict):
            todo.extend(((*path, key), item) for key, item in part.items())
        elif isinstance(part, list):
            todo.extend(((*path, index), item) for index, item in enumerate(part))
        elif isinstance(part, str) and "{{" in part:
            try:
                yield Use(path, parse(part))
            except TemplateError:
                continue


@cache
def _fields(model: type[BaseModel]) -> list[tuple[str, ValueType | None]]:
    return [
        (name, next((mark.type for mark in field.metadata if isinstance(mark, Expects)), None))
        for name, field in model.model_fields.items()
    ]


def _uses(value: Any, path: Path, expected: ValueType | None) -> Iterator[Use]:
    match value:
        case Template():
            yield Use(path, value, expected)
        case Expression():
            yield Use(path, value.template, expected, value)
        case JsonTemplate():
            yield from (Use((*path, *place), template) for place, template in value.templates())
        case BaseModel():
            yield from (replace(use, path=(*path, *use.path)) for use in uses_in(value))
        case list() | dict():
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from _uses(item, (*path, key), expected)


@cache
def bound_fields(config: type[NodeConfig]) -> Mapping[str, BindingKind]:
    """The fields that hold names of bindings, or lists of such, with the kind of binding."""
    return {
        name: mark.kind
        for name, field in config.model_fields.items()
        for mark in (*field.metadata, *_marks_of_items(field.annotation))
        if isinstance(mark, Binds)
    }


def _marks_of_items(annotation: Any) -> Iterator[Any]:
    for item in get_args(annotation) if get_origin(annotation) is list else ():
        yield from getattr(item, "__metadata__", ())


def bound_names(config: type[NodeConfig], raw: Mapping[str, Any]) -> Iterator[tuple[Path, BindingKind, str]]:
    """(place, kind of binding, name) for every bound name in a raw configuration."""
    for field, kind in bound_fields(config).items():
        value = raw.get(field)
        if isinstance(value, str):
            yield (field,), kind, value
        for index, name in enumerate(value if isinstance(value, list) else ()):
            if isinstance(name, str):
                yield (field, index), kind, name
