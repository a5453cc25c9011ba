"""What is known about a value before the run: enough of JSON Schema to check references against fields."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter

KINDS = frozenset({"null", "boolean", "integer", "number", "string", "array", "object"})
_DEEPEST = 16


@dataclass(frozen=True, slots=True)
class ValueType:
    """A set of JSON kinds. `fields` None: an object open to any field; `items` None: items of any type."""

    kinds: frozenset[str] = KINDS
    fields: Mapping[str, ValueType] | None = None
    optional: frozenset[str] = frozenset()
    items: ValueType | None = None

    def __str__(self) -> str:
        if self.kinds == KINDS:
            return "any value"
        names = sorted(self.kinds)
        if names == ["array"] and self.items and self.items.kinds != KINDS:
            return f"array of {self.items}"
        return " or ".join(names)


ANY = ValueType()
TEXT = ValueType(frozenset({"string"}))
FAILURE = ValueType(frozenset({"object"}), {"code": TEXT, "message": TEXT})
"""What a node that failed hands on as `error`."""


@dataclass(frozen=True, slots=True)
class Found:
    """Where a path leads. `certain` is False if it passes a declared field that may be absent.

    What no declaration covers (fields of open objects, indexes) is settled at run time.
    """

    type: ValueType
    certain: bool = True


@dataclass(frozen=True, slots=True)
class Lost:
    """Why a path leads nowhere: the step that failed, and what would have been valid there."""

    step: str
    type: ValueType
    choices: tuple[str, ...] = field(default=())


def given_by(annotation: Any) -> ValueType:
    """The type of what `annotation` serializes to: every field is there."""
    return _complete(of_schema(TypeAdapter(annotation).json_schema(mode="serialization")))


def _complete(value: ValueType) -> ValueType:
    fields = value.fields and {name: _complete(field) for name, field in value.fields.items()}
    return ValueType(value.kinds, fields, frozenset(), value.items and _complete(value.items))


def taken_by(annotation: Any) -> ValueType:
    """The type of what `annotation` can be read from: fields with a default may be absent."""
    schema = TypeAdapter(annotation).json_schema(mode="validation")
    return of_schema(_without_defaults(schema))


def _without_defaults(schema: Any) -> Any:
    """`of_schema` takes a default as a promise that the field is there; a reader's is the opposite."""
    if isinstance(schema, dict):
        return {key: _without_defaults(part) for key, part in schema.items() if key != "default"}
    return [_without_defaults(part) for part in schema] if isinstance(schema, list) else schema


def of_schema(schema: Mapping[str, Any]) -> ValueType:
    """What a JSON Schema (2020-12) says about kinds, properties and items; the rest is left open."""
    definitions = schema.get("$defs") or schema.get("definitions") or {}
    return _of(schema, definitions if isinstance(definitions, Mapping) else {}, _DEEPEST)


def _of(schema: object, definitions: Mapping[str, Any], depth: int) -> ValueType:
    if not isinstance(schema, Mapping) or depth == 0:
        return ANY
    if isinstance(reference := schema.get("$ref"), str):
        return _of(definitions.get(reference.rpartition("/")[2]), definitions, depth - 1)
    for word in ("anyOf", "oneOf"):
        if isinstance(choices := schema.get(word), list) and choices:
            return union(_of(choice, definitions, depth - 1) for choice in choices)
    kinds = _kinds(schema)
    fields, optional = _fields(schema, definitions, depth)
    items = _of(schema["items"], definitions, depth - 1) if "items" in schema else None
    return ValueType(kinds, fields if "object" in kinds else None, optional, items)


def _kinds(schema: Mapping[str, Any]) -> frozenset[str]:
    declared = schema.get("type")
    if isinstance(declared, str):
        return frozenset({declared}) & KINDS or KINDS
    if isinstance(declared, list):
        return frozenset(name for name in declared if isinstance(name, str)) & KINDS or KINDS
    if "const" in schema:
        return frozenset({kind_of(schema["const"])})
    if isinstance(values := schema.get("enum"), list) and values:
        return frozenset(map(kind_of, values))
    return frozenset({"object"}) if "properties" in schema else KINDS


def _fields(
    schema: Mapping[str, Any], definitions: Mapping[str, Any], depth: int
) -> tuple[dict[str, ValueType] | None, frozenset[str]]:
    """Declared properties; an object without any, or with `additionalProperties`, is open."""
    properties = schema.get("properties")
    if not isinstance(properties, Mapping) or schema.get("additionalProperties"):
        return None, frozenset()
    fields = {str(name): _of(value, definitions, depth - 1) for name, value in properties.items()}
    required = schema.get("required")
    always = {name for name in required if isinstance(name, str)} if isinstance(required, list) else set()
    always |= {
        name for name, value in properties.items() if isinstance(value, Mapping) and "default" in value
    }
    return fields, frozenset(fields) - always


def kind_of(value: object) -> str:
    """The JSON kind of a Python value; whole floats are numbers."""
    if value is None:
        return "null"
    for python_type, kind in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (Mapping, "object"),
    ):
        if isinstance(value, python_type):
            return kind
    return "array"


def of_value(value: object) -> ValueType:
    """The type of one constant, its top level only."""
    return ValueType(frozenset({kind_of(value)}))


def union(types: Iterable[ValueType]) -> ValueType:
    """A value of any of `types`: an object has the fields that some of them have."""
    members = list(types)
    if len(members) == 1:
        return members[0]
    kinds = frozenset[str]().union(*(member.kinds for member in members)) or KINDS
    objects = [member for member in members if "object" in member.kinds]
    items = [member.items for member in members if "array" in member.kinds]
    known = [item for item in items if item is not None]
    fields, optional = _either(objects)
    return ValueType(kinds, fields, optional, union(known) if known and len(known) == len(items) else None)


def _either(objects: list[ValueType]) -> tuple[dict[str, ValueType] | None, frozenset[str]]:
    """The fields of any of `objects`, and those that are not in all."""
    closed = [one.fields for one in objects if one.fields is not None]
    if not closed or len(closed) < len(objects):
        return None, frozenset()
    names = dict.fromkeys(name for fields in closed for name in fields)
    found = {name: [fields[name] for fields in closed if name in fields] for name in names}
    optional = {name for name, types in found.items() if len(types) < len(closed)}
    return (
        {name: union(types) for name, types in found.items()},
        frozenset(optional).union(*(one.optional for one in objects)),
    )


def follow(start: ValueType, path: Iterable[str]) -> Found | Lost:
    """Walks `path` (names into objects, indexes into arrays) down from `start`."""
    current, certain = start, True
    for step in path:
        if step.isdigit() and "array" in current.kinds:
            current = current.items or ANY
        elif "object" not in current.kinds:
            return Lost(step, current)
        elif current.fields is None:
            current = ANY
        elif step not in current.fields:
            return Lost(step, current, tuple(current.fields))
        else:
            certain = certain and step not in current.optional
            current = current.fields[step]
    return Found(current, certain)


def fits(expected: ValueType, actual: ValueType) -> bool:
    """False only where no value of `actual` can be one of `expected`."""
    shared = _widened(expected.kinds) & _widened(actual.kinds)
    if not shared:
        return False
    if shared == {"array"} and expected.items and actual.items:
        return fits(expected.items, actual.items)
    if shared == {"object"} and expected.fields is not None and actual.fields is not None:
        return all(name in actual.fields for name in expected.fields if name not in expected.optional)
    return True


def _widened(kinds: frozenset[str]) -> frozenset[str]:
    return kinds | {"integer", "number"} if kinds & {"integer", "number"} else kinds
