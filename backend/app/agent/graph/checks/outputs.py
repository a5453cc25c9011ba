"""What the graph inside of a node gives: the type of its output, read off its ends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.agent.core.base import ERROR
from app.agent.core.value_types import ANY, FAILURE, TEXT, Lost, ValueType, follow, of_value, union
from app.agent.graph.config_fields import uses_in
from app.agent.graph.draft import DraftNode
from app.agent.graph.flow import Flow
from app.agent.graph.issues import Path
from app.agent.graph.references import Chain, Reference, Template

_OUTPUT = "output"
_OBJECT = ValueType(frozenset({"object"}))


def output_of(flow: Flow, sources: Mapping[str, ValueType]) -> ValueType:
    """An object with what any of the ends gives, as far as that is known; `sources` are what can be read
    besides the outputs of nodes."""
    ends = [_given_by(flow.nodes[name], flow, sources) for name in flow.ends]
    return union(ends) if ends else _OBJECT


def _given_by(end: DraftNode, flow: Flow, sources: Mapping[str, ValueType]) -> ValueType:
    config = end.raw.get("config", {})
    output = config.get(_OUTPUT, {}) if isinstance(config, dict) else None
    if end.node is None or not isinstance(output, dict):
        return _OBJECT
    templates = {use.path: use.template for use in uses_in(end.node.config)}

    def type_at(path: Path, value: Any) -> ValueType:
        if isinstance(value, dict):
            fields = {name: type_at((*path, name), item) for name, item in value.items()}
            return ValueType(frozenset({"object"}), fields)
        if isinstance(value, list):
            items = [type_at((*path, index), item) for index, item in enumerate(value)]
            return ValueType(frozenset({"array"}), items=union(items) if items else None)
        template = templates.get(path)
        return of_value(value) if template is None else _of_template(template, flow, sources)

    return type_at((_OUTPUT,), output)


def _of_template(template: Template, flow: Flow, sources: Mapping[str, ValueType]) -> ValueType:
    return TEXT if template.chain is None else _of_chain(template.chain, flow, sources)


def _of_chain(chain: Chain, flow: Flow, sources: Mapping[str, ValueType]) -> ValueType:
    types = [_of_reference(reference, flow, sources) for reference in chain.references]
    return union([*types, *([of_value(chain.literal.value)] if chain.literal else [])])


def _of_reference(reference: Reference, flow: Flow, sources: Mapping[str, ValueType]) -> ValueType:
    """Any type for what leads nowhere, which is told where it stands."""
    node = flow.nodes.get(reference.source)
    if reference.source in sources:
        start = sources[reference.source]
    elif node is not None and node.type is not None:
        start = ValueType(frozenset({"object"}), {**node.types, ERROR: FAILURE})
    else:
        return ANY
    found = follow(start, reference.path)
    return ANY if isinstance(found, Lost) else found.type
