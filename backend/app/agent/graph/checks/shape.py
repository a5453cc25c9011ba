"""Keys, types and values of every part on its own, so that one bad part does not hide the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from app.agent.core.base import NodeType, NodeTypes
from app.agent.graph.checks.reading import read
from app.agent.graph.draft import Draft, DraftEdge, DraftNode
from app.agent.graph.issues import Findings, IssueCode, Path, listing, quoted
from app.agent.graph.limits import MAX_EDGES, MAX_NODES
from app.agent.graph.schema import AgentGraph, Bindings, Edge, Interface, Node, StateField, node_model

_INNER = ("inputs", "nodes", "edges")
_SECTIONS = {"inputs": dict, "state": dict, "bindings": dict, "layout": dict, "nodes": list, "edges": list}


def check_shape(document: Any, findings: Findings, *, types: NodeTypes) -> Draft | None:
    """What could be read of `document`; None where it is no object at all. Its size is checked already."""
    if not isinstance(document, dict):
        message = f"an agent is an object, not {quoted(document)}"
        findings.add(IssueCode.WRONG_TYPE, (), message, fix="send an object with nodes and edges")
        return None
    draft = Draft(document)
    _check_top(document, findings)
    part = _Parts(document, findings)
    draft.durability = _read_durability(document, findings)
    draft.inputs = part.of("inputs", {"type": "object", "properties": {}})
    if document.get("interface") is not None:
        draft.interface = read(Interface, document["interface"], ("interface",), findings)
    draft.state = dict(_read_state(part.of("state", {}) or {}, findings))
    draft.bindings = _read_bindings(part.of("bindings", {}), findings)
    _read_graph(draft, part, findings, types=types)
    return draft


def _read_graph(draft: Draft, part: _Parts, findings: Findings, *, types: NodeTypes) -> None:
    nodes, edges = part.of("nodes", None), part.of("edges", [])
    draft.whole = nodes is not None and edges is not None
    if _within_limits(nodes or [], edges or [], findings):
        draft.nodes = list(_read_nodes(nodes or [], draft, findings, types=types))
        draft.edges = list(_read_edges(edges or [], findings))
        draft.whole &= all(isinstance(raw, dict) and isinstance(raw.get("id"), str) for raw in nodes or [])
        draft.whole &= len(draft.edges) == len(edges or [])
    else:
        draft.whole = False


def _read_inner(
    kind: NodeType | None, raw: Mapping[str, Any], outer: Draft, findings: Findings, *, types: NodeTypes
) -> Draft | None:
    """The graph inside of a node, as far as there is one; `findings` are those of its field."""
    config = raw.get("config")
    document = config.get("graph") if isinstance(config, dict) else None
    if kind is None or not kind.config.holds_graph() or not isinstance(document, dict):
        return None
    for key in document:
        if key not in _INNER:
            fix = findings.instead(key, _INNER)
            message = f"unknown key {quoted(key)}: the graph inside of a node has {listing(_INNER)}"
            findings.add(IssueCode.UNKNOWN_KEY, (key,), message, fix=fix)
    if "nodes" not in document:
        findings.add(IssueCode.MISSING_KEY, (), "the key 'nodes' is missing", fix="add 'nodes'")
    part = _Parts(document, findings)
    draft = Draft(document, inputs=part.of("inputs", None), bindings=outer.bindings, within=kind.name)
    _read_graph(draft, part, findings, types=types)
    return draft


def _read_durability(document: dict[str, Any], findings: Findings) -> Any:
    value = document.get("durability", "step")
    if value in ("step", "exit"):
        return value
    message = f"durability {quoted(value)} is none of 'step' and 'exit'"
    fix = findings.instead(value, ["step", "exit"])
    findings.add(IssueCode.INVALID_VALUE, ("durability",), message, fix=fix)
    return "step"


class _Parts:
    """The sections of a document, by name; one of the wrong JSON type is reported and reads as None."""

    def __init__(self, document: Mapping[str, Any], findings: Findings) -> None:
        self._document = document
        self._findings = findings

    def of(self, name: str, default: Any) -> Any:
        value = self._document.get(name, default)
        wanted = _SECTIONS[name]
        if name in self._document and not isinstance(value, wanted):
            noun = "an object" if wanted is dict else "a list"
            message = f"{name!r} must be {noun}, not {quoted(value)}"
            self._findings.add(IssueCode.WRONG_TYPE, (name,), message, fix=f"make it {noun}")
            return None
        return value


def _check_top(document: dict[str, Any], findings: Findings) -> None:
    known = list(AgentGraph.model_fields)
    for key in document:
        if key not in known:
            fix = findings.instead(key, known)
            findings.add(IssueCode.UNKNOWN_KEY, (key,), f"unknown key {quoted(key)}", fix=fix)
    if not isinstance(document.get("layout", {}), dict):
        message = f"'layout' must be an object, not {quoted(document['layout'])}"
        findings.add(IssueCode.WRONG_TYPE, ("layout",), message, fix="make it an object")
    for key in ("schema_version", "nodes"):
        if key not in document:
            findings.add(IssueCode.MISSING_KEY, (), f"the key {key!r} is missing", fix=f"add {key!r}")
    version = document.get("schema_version", "1")
    if version != "1":
        message = f"schema_version {quoted(version)} is not known"
        fix = 'set "schema_version": "1" (a string)'
        findings.add(IssueCode.INVALID_VALUE, ("schema_version",), message, fix=fix)


def _within_limits(nodes: list[Any], edges: list[Any], findings: Findings) -> bool:
    if len(nodes) > MAX_NODES:
        message = f"{len(nodes)} nodes; at most {MAX_NODES} are allowed"
        findings.add(IssueCode.TOO_MANY_NODES, ("nodes",), message, fix="split the agent into several")
    if len(edges) > MAX_EDGES:
        message = f"{len(edges)} edges; at most {MAX_EDGES} are allowed"
        findings.add(IssueCode.TOO_MANY_EDGES, ("edges",), message, fix="split the agent into several")
    return len(nodes) <= MAX_NODES and len(edges) <= MAX_EDGES


def _read_nodes(
    nodes: list[Any], draft: Draft, findings: Findings, *, types: NodeTypes
) -> Iterator[DraftNode]:
    first: dict[str, int] = {}
    for index, raw in enumerate(nodes):
        path: Path = ("nodes", index)
        if not isinstance(raw, dict):
            message = f"a node is an object, not {quoted(raw)}"
            findings.add(IssueCode.WRONG_TYPE, path, message, fix='write {"id": …, "type": …, "config": …}')
            continue
        name = raw.get("id") if isinstance(raw.get("id"), str) else None
        kind = raw.get("type")
        known = types.get(kind) if isinstance(kind, str) else None
        model = node_model(known) if known else Node
        _check_type(raw, path, findings, types=types, name=name)
        node = read(model, raw, path, findings, node_id=name, skip="" if known else "type/config")
        if name is None:
            continue
        if name in first:
            message = f"the id {name!r} is taken by node {first[name]} already"
            findings.add(
                IssueCode.DUPLICATE_ID, (*path, "id"), message, fix="choose another id", node_id=name
            )
            continue
        first[name] = index
        inside = findings.within((*path, "config", "graph"), name)
        inner = _read_inner(known, raw, draft, inside, types=types)
        yield DraftNode(index, name, raw, known, node if known else None, inner)


def _check_type(
    raw: dict[str, Any], path: Path, findings: Findings, *, types: NodeTypes, name: str | None
) -> None:
    kind = raw.get("type")
    if isinstance(kind, str) and kind in types:
        return
    fix = findings.instead(kind, types)
    if "type" not in raw:
        findings.add(IssueCode.MISSING_KEY, path, "the key 'type' is missing", fix=fix, node_id=name)
        return
    message = f"unknown node type {quoted(kind)}"
    findings.add(IssueCode.UNKNOWN_NODE_TYPE, (*path, "type"), message, fix=fix, node_id=name)


def _read_edges(edges: list[Any], findings: Findings) -> Iterator[DraftEdge]:
    for index, raw in enumerate(edges):
        if edge := read(Edge, raw, ("edges", index), findings):
            yield DraftEdge(index, edge)


def _read_state(raw: dict[str, Any], findings: Findings) -> Iterator[tuple[str, StateField]]:
    read(AgentGraph, {"schema_version": "1", "nodes": [], "state": raw}, (), findings)
    for name, value in raw.items():
        try:
            yield name, StateField.model_validate(value)
        except ValidationError:
            continue


def _read_bindings(raw: Any, findings: Findings) -> Bindings:
    """With mistakes, still every entry that reads, so that their uses are not called unbound."""
    if bindings := read(Bindings, raw or {}, ("bindings",), findings):
        return bindings
    kept = {
        kind: {name: to for name, to in raw[kind].items() if isinstance(to, str)}
        for kind in Bindings.model_fields
        if isinstance(raw.get(kind), dict)
    }
    return Bindings.model_construct(**{**Bindings().model_dump(), **kept})
