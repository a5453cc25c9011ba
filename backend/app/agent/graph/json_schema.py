"""JSON Schema (2020-12) for inputs and answers: which are accepted, and how a value is held against one.

A schema comes from a stranger, so its cost is bounded before it is used: no patterns (Python's `re`
backtracks without limit), references only inside the document, no recursion, a limited expanded size.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from jsonschema.validators import extend
from pydantic_core import PydanticCustomError
from referencing import Registry

from app.agent.core.value_types import KINDS
from app.agent.graph.issues import Findings, IssueCode, Path, pointer, quoted
from app.core.errors import FieldError

MAX_EXPANDED = 10_000
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_UNBOUNDED = {"pattern", "patternProperties"}
_FAR = {"$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$recursiveRef", "$vocabulary"}
_DATA = {"const", "default", "enum", "examples"}
_NAMED = {"properties", "$defs", "definitions", "dependentSchemas"}


def check_schema(schema: Mapping[str, Any], path: Path, findings: Findings) -> bool:
    """Reports whatever keeps `schema` from describing an object safely. True if it does."""
    problems = _problems(schema, findings, what="inputs")
    for code, place, message, fix in problems:
        findings.add(code, (*path, *place), message, fix=fix)
    return not problems


def sound_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """`schema` itself if it describes an object safely, as a field of a node's configuration must."""
    return _sound(schema, _problems(schema, Findings(), what="it"))


def sound_value_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """The same for a schema of any value."""
    return _sound(schema, _value_problems(schema, Findings()))


def _sound(schema: dict[str, Any], problems: list[_Problem]) -> dict[str, Any]:
    for code, place, message, fix in problems:
        raise PydanticCustomError(
            code.value, "{message}: {fix}", {"message": message, "fix": fix, "path": place}
        )
    return schema


def _value_problems(schema: Mapping[str, Any], findings: Findings) -> list[_Problem]:
    return [
        *_meta_problems(schema, findings),
        *_keyword_problems(schema),
        *_reference_problems(schema),
    ]


def _problems(schema: Mapping[str, Any], findings: Findings, *, what: str) -> list[_Problem]:
    problems = _value_problems(schema, findings)
    if schema.get("type") != "object":
        message = f'{what} must be an object, but "type" is {quoted(schema.get("type"))}'
        problems.append((IssueCode.INVALID_SCHEMA, (), message, 'set "type": "object"'))
    return problems


_Problem = tuple[IssueCode, Path, str, str]


def _meta_problems(schema: Mapping[str, Any], findings: Findings) -> Iterator[_Problem]:
    validator = Draft202012Validator(Draft202012Validator.META_SCHEMA, registry=_NOTHING_REMOTE)
    for error in validator.iter_errors(schema):
        place = tuple(error.absolute_path)
        if place[-1:] == ("type",) and isinstance(error.instance, str):
            message = f"{quoted(error.instance)} is no JSON type"
            yield IssueCode.INVALID_SCHEMA, place, message, findings.instead(error.instance, sorted(KINDS))
        else:
            fix = "see https://json-schema.org/draft/2020-12"
            yield IssueCode.INVALID_SCHEMA, place, _said(error), fix


def _keyword_problems(schema: Mapping[str, Any]) -> Iterator[_Problem]:
    for place, part in _subschemas(schema):
        for word in part:
            at = (*place, word)
            if word in _UNBOUNDED:
                yield IssueCode.UNSUPPORTED_SCHEMA, at, f"{word!r} is not supported", "remove it"
            elif word in _FAR:
                fix = 'use "$ref": "#/$defs/<name>"'
                yield IssueCode.UNSUPPORTED_SCHEMA, at, f"{word!r} is not supported", fix
        dialect = part.get("$schema", DIALECT)
        if dialect != DIALECT:
            message = f"dialect {quoted(dialect)} is not supported"
            fix = f"use {DIALECT!r}, or leave it out"
            yield IssueCode.UNSUPPORTED_SCHEMA, (*place, "$schema"), message, fix


def _reference_problems(schema: Mapping[str, Any]) -> Iterator[_Problem]:
    """References must lead to a definition here, not in circles, and not to an explosion."""
    targets = {
        f"#/{section}/{name}": part
        for section in ("$defs", "definitions")
        if isinstance(schema.get(section), Mapping)
        for name, part in schema[section].items()
    }
    broken = False
    for place, part in _subschemas(schema):
        reference = part.get("$ref")
        if isinstance(reference, str) and reference not in targets:
            broken = True
            message = f"{quoted(reference)} leads to no definition in this schema"
            yield IssueCode.UNSUPPORTED_SCHEMA, (*place, "$ref"), message, 'define it under "$defs"'
    if not broken and _expanded(schema, targets) > MAX_EXPANDED:
        message = f"the references are recursive, or expand to more than {MAX_EXPANDED} schemas"
        fix = "make the schema smaller, with no definition inside itself"
        yield IssueCode.UNSUPPORTED_SCHEMA, (), message, fix


def _expanded(schema: Mapping[str, Any], targets: Mapping[str, Any]) -> int:
    """How many subschemas there are with every reference written out; recursion counts as too many."""
    uses = {name: _uses(part) for name, part in {"": schema, **targets}.items()}
    sizes: dict[str, int] = {}
    open_names: set[str] = set()
    todo = [""]
    while todo:
        name = todo[-1]
        missing = [used for used in uses[name][1] if used not in sizes]
        if name in sizes:
            todo.pop()
        elif any(used in open_names or used == name for used in missing):
            return MAX_EXPANDED + 1
        elif missing:
            open_names.add(name)
            todo.append(missing[0])
        else:
            open_names.discard(name)
            sizes[name] = uses[name][0] + sum(sizes[used] for used in uses[name][1])
    return sizes[""]


def _uses(part: Any) -> tuple[int, list[str]]:
    """The number of subschemas of `part` and the references among them (definitions left out)."""
    found = list(_subschemas(part, definitions=False))
    references = [schema.get("$ref") for _, schema in found]
    return len(found), [reference for reference in references if isinstance(reference, str)]


def _subschemas(schema: Any, *, definitions: bool = True) -> Iterator[tuple[Path, Mapping[str, Any]]]:
    """Every object that may be a schema, with its place; names and constants are stepped over."""
    todo: list[tuple[Path, Any, bool]] = [((), schema, True)]
    while todo:
        place, part, is_schema = todo.pop()
        if isinstance(part, list):
            todo.extend(((*place, index), item, True) for index, item in enumerate(part))
        elif isinstance(part, Mapping):
            if is_schema:
                yield place, part
            for word, item in part.items():
                if is_schema and (word in _DATA or (word in {"$defs", "definitions"} and not definitions)):
                    continue
                todo.append(((*place, word), item, not (is_schema and word in _NAMED)))


def _linear_unique(validator: Any, wanted: bool, items: Any, schema: Any) -> Iterator[ValidationError]:
    """`uniqueItems` by comparing canonical texts, where jsonschema compares every pair."""
    if wanted and isinstance(items, list):
        texts = {json.dumps(_normal(item), sort_keys=True) for item in items}
        if len(texts) < len(items):
            yield ValidationError("items are not unique")


def _normal(value: Any) -> Any:
    """1.0 equals 1 in JSON Schema."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_normal(item) for item in value]
    if isinstance(value, dict):
        return {key: _normal(item) for key, item in value.items()}
    return value


_NOTHING_REMOTE: Any = Registry()
_Validator: Any = extend(Draft202012Validator, {"uniqueItems": _linear_unique})  # type: ignore[no-untyped-call]


class Shape:
    """A schema that has passed `check_schema`, ready to hold any number of values against it."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._validator = _Validator(schema, registry=_NOTHING_REMOTE)

    def errors_of(self, value: Any) -> list[FieldError]:
        """Everything wrong with `value`, with pointers into it."""
        return [
            FieldError(pointer(tuple(error.absolute_path)), str(error.validator), _said(error))
            for error in self._validator.iter_errors(value)
        ]


def errors_of(schema: Mapping[str, Any], value: Any) -> list[FieldError]:
    """The same for a schema that is used once."""
    return Shape(schema).errors_of(value)


def in_short(errors: Sequence[FieldError]) -> str:
    """The first errors in one line."""
    return "; ".join(f"{one.pointer or '/'}: {one.message}" for one in errors[:3])


def with_defaults(schema: Mapping[str, Any], value: Mapping[str, Any]) -> dict[str, Any]:
    """`value` with the defaults of absent top-level properties filled in."""
    properties = schema.get("properties", {})
    defaults = {
        name: part["default"]
        for name, part in properties.items()
        if isinstance(part, Mapping) and "default" in part
    }
    return {**defaults, **value}


def _said(error: ValidationError) -> str:
    """jsonschema's words, in which values are written as Python does, with values as JSON has them."""
    value = quoted(error.instance)
    wanted: Any = error.validator_value
    match error.validator:
        case "type":
            kinds = wanted if isinstance(wanted, list) else [wanted]
            return f"{value} is not of type {', '.join(map(repr, kinds))}"
        case "enum":
            return _cut(f"{value} is not one of {', '.join(map(quoted, wanted))}")
        case "const":
            return f"{value} is not {quoted(wanted)}"
    said = error.message.removeprefix(repr(error.instance))
    return _cut(value + said if said != error.message else said)


def _cut(message: str) -> str:
    return message if len(message) <= 300 else message[:299] + "…"
