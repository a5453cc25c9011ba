"""Pages of the node types, and the table of the events of runs."""

from __future__ import annotations

from typing import Any

from app.agent.core.base import NODE_TYPES, SUCCESS, NodeConfig, NodeType
from app.agent.core.events import PAYLOADS
from app.agent.graph.config_fields import bound_names, uses_in
from app.agent.graph.node_catalogue import NodeTypeRead, described, policies
from scripts.reference.graphs import Graph
from scripts.reference.markdown import Pages, code, fields, page, said, sentence, shapes, table, yaml_block

_SAMPLE = {"models": "large", "collections": "handbook", "agents": "reviewer", "tools": "crm"}


def node_pages() -> Pages:
    kinds = [described(kind) for kind in NODE_TYPES.values()]
    pages = {f"nodes/{kind.type}.md": _page(kind) for kind in kinds}
    rows = [(f"[`{kind.type}`]({kind.type}.md)", kind.summary, kind.effect.default) for kind in kinds]
    pages["nodes/index.md"] = page(
        "Node types",
        "What the nodes of a graph can be. Every node has an `id`, a `type`, its `config`, and the policies "
        "below.",
        table(("Type", "", "Effect"), rows),
        "## Policies",
        fields(policies(), policies()["$defs"]),
        *shapes(policies()),
    )
    return pages


def example_graph(kind: NodeType) -> Graph:
    """A whole graph with the example of a node type: what it reads are inputs, what it binds is bound."""
    read = described(kind)
    example = read.example
    middle = [] if kind.name in ("start", "end") else [example]
    last = example if kind.name == "end" else {"id": "done", "type": "end"}
    first = example if kind.name == "start" else {"id": "start", "type": "start"}
    ways = read.handles.success if middle else []
    edges = [_edge(first["id"], SUCCESS, (middle or [last])[0]["id"])]
    edges += [_edge(example["id"], way, last["id"]) for way in ways]
    bindings: dict[str, dict[str, str]] = {}
    for _, what, name in bound_names(kind.config, kind.config.example):
        bindings.setdefault(what, {})[name] = _SAMPLE.get(what, "example")
    config = kind.config.model_validate(kind.config.example)
    state = {name: {"type": "array", "reducer": "append", "initial": []} for name in sorted(config.writes())}
    needed = {"inputs": _inputs(config), "state": state, "bindings": bindings}
    return {
        "schema_version": "1",
        **{section: value for section, value in needed.items() if value},
        "nodes": [first, *middle, last],
        "edges": edges,
    }


def _edge(source: str, handle: str, target: str) -> dict[str, str]:
    return {"source": source, **({"handle": handle} if handle != SUCCESS else {}), "target": target}


def _inputs(config: NodeConfig) -> dict[str, Any]:
    """A schema of the inputs that an example reads, of whatever type."""
    names: dict[str, Any] = {
        reference.path[0]: {}
        for use in uses_in(config)
        for chain in use.template.chains
        for reference in chain.references
        if reference.source == "inputs" and reference.path
    }
    return {"type": "object", "properties": names, "required": sorted(names)} if names else {}


def _page(kind: NodeTypeRead) -> str:
    schema = kind.config_schema
    takes = fields(schema, schema.get("$defs", {})) if schema.get("properties") else "It has none."
    return page(
        code(kind.type),
        kind.description,
        table(("", ""), _facts(kind)),
        "## Configuration",
        takes,
        *shapes(schema),
        "## Outputs",
        _outputs(kind),
        "## Example",
        yaml_block(example_graph(NODE_TYPES[kind.type])),
    )


def _facts(kind: NodeTypeRead) -> list[tuple[str, str]]:
    ways = ", ".join(map(code, kind.handles.success)) or "none"
    rows = [
        ("Effect", f"{code(kind.effect.default)}{_rule(kind.effect.rule)}"),
        ("Ways out", kind.handles.rule or ways),
        ("Can fail", f"yes: it has the handle {code(kind.handles.error)}" if kind.handles.error else "no"),
    ]
    if kind.streams:
        rows.append(("Told while it is written", f"the output {code(kind.streams)}"))
    needs = ", ".join(map(code, kind.requires.always))
    if needs or kind.requires.rule:
        rows.append(("Its model needs", f"{needs}{' ' if needs else ''}{kind.requires.rule}"))
    for field, what in kind.binds.items():
        rows.append((code(field), f"names an entry of `bindings.{what}`"))
    return rows


def _rule(rule: str) -> str:
    return f": {rule[:1].lower()}{rule[1:]}" if rule else ""


def _outputs(kind: NodeTypeRead) -> str:
    if not kind.outputs.schemas:
        return "It has none."
    rows = [(code(name), said(schema, _inline(schema))) for name, schema in kind.outputs.schemas.items()]
    known = "\n\n".join(
        part for schema in kind.outputs.schemas.values() for part in shapes(_with_itself(schema))
    )
    rule = f"\n\n{kind.outputs.rule[:1].upper()}{kind.outputs.rule[1:]}" if kind.outputs.rule else ""
    return table(("Name", "Is"), rows) + rule + ("\n\n" + known if known else "")


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    definitions: dict[str, Any] = schema.get("$defs", {})
    return definitions


def _with_itself(schema: dict[str, Any]) -> dict[str, Any]:
    """An output that is an object itself, among those with a name."""
    own = {schema["title"]: schema} if schema.get("properties") and "title" in schema else {}
    return {"$defs": {**own, **_inline(schema)}}


def events_page() -> Pages:
    parts: list[str] = []
    definitions: dict[str, Any] = {}
    for name, payload in PAYLOADS.items():
        schema = payload.model_json_schema(mode="serialization")
        parts += [f"## {code(name)}", schema.get("description", ""), fields(schema, _inline(schema))]
        definitions |= _inline(schema)
    rows = [
        (f"[`{name}`](#{name.replace('.', '')})", sentence(p.__doc__ or "")) for name, p in PAYLOADS.items()
    ]
    return {
        "events.md": page(
            "Events of runs",
            "A run tells AG-UI 1.0 events: `RUN_STARTED` first, `TEXT_MESSAGE_START`, `TEXT_MESSAGE_CONTENT` "
            "and `TEXT_MESSAGE_END` for the answer's text, `TOOL_CALL_START`, `TOOL_CALL_ARGS`, "
            "`TOOL_CALL_END` and `TOOL_CALL_RESULT` for the tools that `agent` nodes call, and exactly one "
            "of `RUN_FINISHED` and `RUN_ERROR` last. All else is a `CUSTOM` event with one of the "
            "names below; its `value` has these keys. "
            "[Runs](../runs.md) says how they are read.",
            table(("Name", ""), rows),
            *parts,
            "## Parts of them",
            *shapes({"$defs": definitions}),
        )
    }
