"""The one place where Pydantic's errors become issues: which value is wrong, and what its place takes.

Pydantic says which of its validators failed, each alternative of a union by itself. A reader of JSON wants
one sentence per mistake, which the JSON Schema of the place gives: field, what it takes, what it was given.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_core.core_schema import ErrorType

from app.agent.core.value_types import fits, of_schema, of_value
from app.agent.graph.checks.words import Schema, constants, given, in_words, key_form
from app.agent.graph.issues import Findings, IssueCode, Path, quoted

_Part = TypeVar("_Part", bound=BaseModel)
_PYDANTICS = frozenset(get_args(ErrorType))
"""Kinds of errors that are not ours."""
_CODES = {
    "invalid_reference": IssueCode.INVALID_REFERENCE,
    "invalid_expression": IssueCode.INVALID_EXPRESSION,
    "reserved_id": IssueCode.RESERVED_ID,
    "invalid_schema": IssueCode.INVALID_SCHEMA,
    "unsupported_schema": IssueCode.UNSUPPORTED_SCHEMA,
}
_FIXES = {
    IssueCode.INVALID_REFERENCE: "write '{{ source.path }}', or '{{ source.path ?? \"constant\" }}'",
    IssueCode.INVALID_EXPRESSION: "write Python over references, for example '{{ inputs.n }} > 10'",
}
_RANGES = ("greater_than", "less_than", "too_long", "too_short")
_KEY = "[key]"


def read(
    model: type[_Part],
    raw: Any,
    path: Path,
    findings: Findings,
    *,
    node_id: str | None = None,
    skip: str = "",
) -> _Part | None:
    """`raw` as `model`, or None with everything wrong in it reported (but for the keys in `skip`)."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        faults = [
            _located(detail, model, raw)
            for detail in error.errors(include_url=False)
            if not (skip and detail["loc"] and str(detail["loc"][0]) in skip.split("/"))
        ]
        for fault in _one_each(fault for fault in faults if not _is_false(fault)):
            _report(fault, path, findings, node_id)
        return None


@dataclass(frozen=True, slots=True)
class _Fault:
    """One error. `place` is where it lies in the document, as far as that exists; `key` what it is about.

    `forms` are the schemas of which the value should have been one, or, where the error is about a key, those
    of the object. `fork` is the place of the union that the error is in, `inside` whether it lies deeper.
    """

    detail: ErrorDetails
    place: Path
    key: int | str
    forms: tuple[Schema, ...]
    fork: Path | None
    inside: bool

    @property
    def kind(self) -> str:
        return self.detail["type"]

    @property
    def is_ours(self) -> bool:
        return self.kind not in _PYDANTICS


def _located(detail: ErrorDetails, model: type[BaseModel], raw: Any) -> _Fault:
    """Walks the error's location through schema and document at once.

    In a union its next step names the alternative and leads nowhere.
    """
    schema = _schema_of(model)
    forms = objects = _forms([schema], schema)
    place: Path = ()
    fork: Path | None = None
    inside = entered = False
    key: int | str = ""
    for step in detail["loc"]:
        if step == _KEY:
            break
        if len(forms) > 1 and not entered:
            fork, inside, entered = place, False, True
            continue
        key = step
        objects, forms = forms, _forms([below for form in forms for below in _below(form, step)], schema)
        inside, entered = True, False
        if step in (raw if isinstance(raw, dict) else range(len(raw)) if isinstance(raw, list) else ()):
            raw = raw[step]
            place = (*place, step)
    about_key = detail["type"] in ("extra_forbidden", "missing") or _KEY in detail["loc"]
    return _Fault(detail, place, key, objects if about_key else forms, fork, inside)


@cache
def _schema_of(model: type[BaseModel]) -> Schema:
    return model.model_json_schema()


def _forms(schemas: Iterable[Schema], root: Schema) -> tuple[Schema, ...]:
    """Schemas without references and alternatives; that a value may also be null goes without saying."""
    found: list[Schema] = []
    for schema in schemas:
        if reference := schema.get("$ref"):
            found.extend(_forms([root["$defs"][reference.rpartition("/")[2]]], root))
        elif choices := schema.get("anyOf") or schema.get("oneOf"):
            found.extend(_forms([choice for choice in choices if choice.get("type") != "null"], root))
        else:
            found.append(schema)
    return tuple(found)


def _below(form: Schema, step: int | str) -> Iterator[Schema]:
    if isinstance(step, int):
        yield form.get("items", {})
    elif step in form.get("properties", {}):
        yield form["properties"][step]
    else:
        others = (*form.get("patternProperties", {}).values(), form.get("additionalProperties"))
        yield from (schema for schema in others if isinstance(schema, Mapping))


def _is_false(fault: _Fault) -> bool:
    """Pydantic counts only the items that are right, and so calls lists too short that are not."""
    limits, value = fault.detail.get("ctx", {}), fault.detail["input"]
    return fault.kind == "too_short" and len(value) >= limits["min_length"]


def _one_each(faults: Iterable[_Fault]) -> Iterator[_Fault]:
    """Of a union only what was said about the alternative that was meant, or else one fault for all."""
    forks: dict[Path, list[_Fault]] = {}
    order: list[_Fault | Path] = []
    for fault in faults:
        if fault.fork is None:
            order.append(fault)
        elif fault.fork in forks:
            forks[fault.fork].append(fault)
        else:
            forks[fault.fork] = [fault]
            order.append(fault.fork)
    for entry in order:
        if isinstance(entry, _Fault):
            yield entry
        else:
            meant = [fault for fault in forks[entry] if fault.inside or fault.is_ours]
            yield from meant or sorted(forks[entry], key=_is_about_type)[:1]


def _is_about_type(fault: _Fault) -> bool:
    return fault.kind.endswith("_type")


def _report(fault: _Fault, path: Path, findings: Findings, node_id: str | None) -> None:
    place = (*path, *fault.place, *fault.detail.get("ctx", {}).get("path", ()))
    name, value = _name((*path, *fault.place)), fault.detail["input"]
    if fault.is_ours:
        code = _CODES.get(fault.kind, IssueCode.INVALID_VALUE)
        said = _lower(fault.detail["msg"])
        message, fix = f"{name!r}: {said}, got {quoted(value)}", _FIXES.get(code, said)
    elif fault.kind == "missing":
        code = IssueCode.MISSING_KEY
        message, fix = f"the key {str(fault.key)!r} is missing", f"add {str(fault.key)!r}"
    elif (known := _keys(fault)) is not None:
        code = IssueCode.UNKNOWN_KEY
        message, fix = f"unknown key {quoted(fault.key)}", findings.instead(fault.key, known)
    elif _KEY in fault.detail["loc"]:
        code, takes = IssueCode.INVALID_VALUE, in_words(map(key_form, fault.forms))
        message, fix = f"{quoted(fault.key)} is no key here: a key is {takes}", f"give {takes}"
    else:
        code, takes, choices = _code(fault), in_words(fault.forms), constants(fault.forms)
        message = f"{name!r} takes {takes}, not {given(value)}"
        fix = findings.instead(value, choices) if choices else f"give {takes}"
    findings.add(code, place, message, fix=fix, node_id=node_id)


def _keys(fault: _Fault) -> list[str] | None:
    """The keys there are, where that is the mistake."""
    if fault.kind == "extra_forbidden":
        return sorted({name for form in fault.forms for name in form.get("properties", ())})
    return constants(map(key_form, fault.forms)) if _KEY in fault.detail["loc"] else None


def _code(fault: _Fault) -> IssueCode:
    value = of_value(fault.detail["input"])
    if _is_about_type(fault) or not any(fits(of_schema(form), value) for form in fault.forms):
        return IssueCode.WRONG_TYPE
    if any(word in fault.kind for word in _RANGES):
        return IssueCode.OUT_OF_RANGE
    return IssueCode.INVALID_VALUE


def _name(path: Path) -> str:
    """The key that a path ends at, with the indexes that follow it: `on[0]`."""
    name = ""
    for step in path:
        name = f"{name}[{step}]" if isinstance(step, int) else step
    return name


def _lower(message: str) -> str:
    return message[:1].lower() + message[1:].rstrip(".")
