"""A valid configuration of any node type, its own example; and the smallest value of any JSON Schema."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from app.agent.core.base import NodeType
from app.agent.graph.config_fields import bound_names, uses_in

TARGETS = {"models": "default-chat", "collections": "handbook", "tools": "crm-lookup", "agents": "helper"}
_SIMPLE: dict[str, Any] = {"boolean": True, "null": None}


def config_of(kind: NodeType) -> dict[str, Any]:
    return deepcopy(kind.config.example)


def around(kind: NodeType) -> dict[str, Any]:
    """What a document needs for it: the inputs that it reads, the names it binds, the state it writes."""
    config = kind.config.model_validate(config_of(kind))
    read = {
        reference.path[0]
        for use in uses_in(config)
        for chain in use.template.chains
        for reference in chain.references
        if reference.source == "inputs"
    }
    bindings: dict[str, dict[str, str]] = {}
    for _, what, name in bound_names(kind.config, config_of(kind)):
        bindings.setdefault(what, {})[name] = TARGETS[what]
    written = {name: {"type": "array", "reducer": "append", "initial": []} for name in config.writes()}
    inputs = {
        "type": "object",
        "properties": {name: {"default": "Why?"} for name in sorted({"question", *read})},
    }
    return {"inputs": inputs, "bindings": bindings, "state": written}


def sample(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    """The smallest value of a JSON Schema."""
    if reference := schema.get("$ref"):
        return sample(definitions[reference.rpartition("/")[2]], definitions)
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return sample(choices[0], definitions)
    if "enum" in schema:
        return schema["enum"][0]
    if "examples" in schema:
        return schema["examples"][0].partition("{{")[0]
    return schema.get("const", _typed(schema, definitions))


def _typed(schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    match schema.get("type", "null"):
        case "object":
            known = schema.get("properties", {})
            return {name: sample(known[name], definitions) for name in schema.get("required", ())}
        case "array":
            return [sample(schema["items"], definitions)] * schema.get("minItems", 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "string":
            return "a" if "pattern" in schema else "True"  # a template, and an expression
        case simple:
            return _SIMPLE[simple]
