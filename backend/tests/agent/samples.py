"""A valid configuration of any node type, made from its schema."""

from __future__ import annotations

from typing import Any

from app.agent.core.base import NodeType
from app.agent.graph.config_fields import bound_names

BOUND = {"models": "main", "collections": "kb", "tools": "tool", "agents": "agent"}
_SIMPLE: dict[str, Any] = {"boolean": True, "null": None}


def config_of(kind: NodeType) -> dict[str, Any]:
    schema = kind.config.model_json_schema()
    config: dict[str, Any] = sample(schema, schema.get("$defs", {}))
    return config | {field: BOUND[what] for field, what, _ in bound_names(kind.config, config)}


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
