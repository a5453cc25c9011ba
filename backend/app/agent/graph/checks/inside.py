"""What the graph inside of a node is given, against what it declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.agent.core.value_types import ANY, ValueType
from app.agent.graph.checks.interface import check_inputs
from app.agent.graph.draft import Draft, DraftNode
from app.agent.graph.issues import Findings, IssueCode


def check_inner_inputs(node: DraftNode, inner: Draft, findings: Findings) -> ValueType:
    """The type of `inputs` inside: as declared there, or else the names that the node gives."""
    config = node.raw.get("config")
    given = config.get("inputs", {}) if isinstance(config, dict) else {}
    names = dict.fromkeys(given, ANY) if isinstance(given, dict) else {}
    if inner.inputs is None:
        return ValueType(frozenset({"object"}), names)
    declared = check_inputs(inner, findings)
    if isinstance(given, dict):
        _check_given(inner.inputs, declared, names, findings)
    return declared


def _check_given(
    schema: Mapping[str, Any], declared: ValueType, names: Mapping[str, Any], findings: Findings
) -> None:
    for name in declared.fields or ():
        if name not in names and name not in declared.optional and name in _required(schema):
            message = f"the graph requires the input {name!r}, which the node does not give"
            fix = f"add {name!r} to the node's 'inputs'"
            findings.add(IssueCode.MISSING_KEY, ("inputs",), message, fix=fix)
    for name in names:
        if declared.fields is not None and name not in declared.fields:
            message = f"the node gives the input {name!r}, which the graph inside of it does not declare"
            fix = findings.instead(name, declared.fields)
            findings.add(IssueCode.UNKNOWN_INPUT, ("inputs",), message, fix=fix)


def _required(schema: Mapping[str, Any]) -> list[Any]:
    required = schema.get("required")
    return required if isinstance(required, list) else []
