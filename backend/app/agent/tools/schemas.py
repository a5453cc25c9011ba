"""Parameters as others describe them → JSON Schema (2020-12) that is safe and cheap to check against.

Servers and OpenAPI documents are written by strangers. What cannot be bounded is left out (patterns), and
what another dialect writes differently is rewritten, so that the result never refuses what the original took:
the other side checks its arguments itself. References are written out, because not every model follows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.agent.core.base import NodeError
from app.agent.graph.issues import Findings
from app.agent.graph.json_schema import check_schema

_DEEPEST = 24
_MOST = 2_000
"""Subschemas of one operation, with every reference written out."""
_PLAIN = frozenset(
    (
        *("type", "enum", "const", "title", "description", "format", "default", "examples", "required"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "uniqueItems"),
        *("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"),
    )
)
_ONE = ("items", "additionalProperties")
_SOME = ("allOf", "anyOf", "prefixItems")
_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class UnusableSchema(NodeError):
    """The schema cannot be used; says why."""

    code = "invalid_schema"


def parameters_of(schema: Any, *, root: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """`schema`, of an object, with references into `root` (itself by default) written out.

    Raises `UnusableSchema`.
    """
    if not isinstance(schema, Mapping):
        raise UnusableSchema("the schema of the parameters is not an object")
    written = _Writing(schema if root is None else root).out(schema)
    written.setdefault("type", "object")
    findings = Findings()
    if not check_schema(written, (), findings):
        issue = findings.report(written).issues[0]
        raise UnusableSchema(f"{issue.pointer or 'the schema'}: {issue.message}")
    return written


@dataclass(slots=True)
class _Writing:
    """Writes a schema out; counts what comes of it."""

    root: Mapping[str, Any]
    count: int = 0

    def out(self, schema: Any, depth: int = 0, inside: tuple[str, ...] = ()) -> dict[str, Any]:
        """`inside`: the references that led here; one inside itself stands for anything."""
        self.count += 1
        if self.count > _MOST:
            raise UnusableSchema(f"its schema has more than {_MOST} parts")
        if not isinstance(schema, Mapping) or depth > _DEEPEST:
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            if reference in inside:
                return {}
            target = self._target(reference)
            siblings = {word: value for word, value in schema.items() if word != "$ref"}
            return self.out({**target, **siblings}, depth, (*inside, reference))
        written = {word: value for word, value in schema.items() if word in _PLAIN}
        self._nest(schema, written, depth, inside=inside)
        return _of_this_dialect(schema, written)

    def _nest(
        self, schema: Mapping[str, Any], written: dict[str, Any], depth: int, *, inside: tuple[str, ...]
    ) -> None:
        if isinstance(properties := schema.get("properties"), Mapping):
            written["properties"] = {
                name: self.out(part, depth + 1, inside) for name, part in properties.items()
            }
        for word in _ONE:
            if word in schema:
                part = schema[word]
                written[word] = part if isinstance(part, bool) else self.out(part, depth + 1, inside)
        if "patternProperties" in schema:  # left out, so what they let in must stay possible
            written["additionalProperties"] = True
        for word in _SOME:
            if isinstance(parts := schema.get(word), list) and parts:
                written[word] = [self.out(part, depth + 1, inside) for part in parts]
        if isinstance(parts := schema.get("oneOf"), list) and parts:  # what is left out may tell them apart
            written.setdefault("anyOf", [self.out(part, depth + 1, inside) for part in parts])

    def _target(self, reference: str) -> Mapping[str, Any]:
        found = resolve(self.root, reference)
        if not isinstance(found, Mapping):
            raise UnusableSchema(f"{reference[:200]!r} leads to nothing in the document")
        return found


def resolve(root: Any, reference: str) -> Any:
    """What a local reference (`#/components/schemas/Pet`, RFC 6901) leads to; None if to nothing."""
    if reference == "#":
        return root
    if not reference.startswith("#/"):
        return None
    here = root
    for token in reference[2:].split("/"):
        name = token.replace("~1", "/").replace("~0", "~")
        if not isinstance(here, Mapping) or name not in here:
            return None
        here = here[name]
    return here


def _of_this_dialect(schema: Mapping[str, Any], written: dict[str, Any]) -> dict[str, Any]:
    """OpenAPI 3.0 (JSON Schema draft 4): exclusive bounds are flags, null is `nullable`."""
    for bound, exclusive in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if isinstance(flag := written.get(exclusive), bool):
            del written[exclusive]
            if flag and bound in written:
                written[exclusive] = written.pop(bound)
    if isinstance(written.get("required"), bool):
        del written["required"]
    if schema.get("nullable") is True and isinstance(kind := written.get("type"), str):
        written["type"] = [kind, "null"]
        if isinstance(choices := written.get("enum"), list) and None not in choices:
            written["enum"] = [*choices, None]
    return written


def safe_name(name: str, taken: Mapping[str, Any] | set[str]) -> str:
    """`name` as every model's API takes it: at most 64 of A-Z, a-z, 0-9, `_` and `-`; none of `taken`."""
    base = _NAME.sub("_", name).strip("_")[:64] or "operation"
    found, number = base, 2
    while found in taken:
        ending = f"_{number}"
        found, number = base[: 64 - len(ending)] + ending, number + 1
    return found
