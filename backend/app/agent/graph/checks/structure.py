"""Nodes and edges as a graph: start and ends, edges that lead somewhere, no circles, no dead ends."""

from __future__ import annotations

from collections import Counter

from app.agent.core.base import ERROR
from app.agent.graph.branches import Cube
from app.agent.graph.draft import Draft, DraftEdge, DraftNode
from app.agent.graph.flow import Flow
from app.agent.graph.issues import Findings, IssueCode, quoted
from app.agent.graph.limits import MAX_ENDS, MAX_FAN_OUT
from app.core.dag import cycles, reachable, reverse


def check_structure(flow: Flow, findings: Findings) -> None:
    _check_terminals(flow, findings)
    _check_edges(flow.draft, flow.nodes, findings)
    _check_fan_out(flow, findings)
    _check_cycles(flow, findings)
    if flow.draft.whole:
        _check_reach(flow, findings)
    _check_ends(flow, findings)


def _check_terminals(flow: Flow, findings: Findings) -> None:
    starts, ends = flow.starts, flow.ends
    if not starts and flow.draft.whole:
        fix = 'add {"id": "start", "type": "start"} and an edge from it'
        findings.add(IssueCode.MISSING_START, ("nodes",), "the graph has no start node", fix=fix)
    if not ends and flow.draft.whole:
        fix = 'add {"id": "done", "type": "end", "config": {"output": {…}}} and an edge to it'
        findings.add(IssueCode.MISSING_END, ("nodes",), "the graph has no end node", fix=fix)
    for name in starts[1:]:
        message = f"node {name!r} is a second start; the first is {starts[0]!r}"
        fix = "keep one start node"
        findings.add(IssueCode.DUPLICATE_START, flow.nodes[name].path, message, fix=fix, node_id=name)
    if len(ends) > MAX_ENDS:
        message = f"{len(ends)} end nodes; at most {MAX_ENDS} are allowed"
        findings.add(IssueCode.TOO_MANY_NODES, ("nodes",), message, fix="let branches share an end")


def _check_edges(draft: Draft, nodes: dict[str, DraftNode], findings: Findings) -> None:
    seen: dict[tuple[str, str, str], int] = {}
    for entry in draft.edges:
        edge = entry.edge
        for key, name in (("source", edge.source), ("target", edge.target)):
            if name not in nodes:
                message = f"the edge's {key} {quoted(name)} is no node"
                fix = findings.instead(name, nodes)
                findings.add(IssueCode.DANGLING_EDGE, (*entry.path, key), message, fix=fix)
        _check_handle(entry, nodes, findings)
        target = nodes.get(edge.target)
        if target and target.type and target.type.name == "start":
            message = f"an edge leads into the start node {edge.target!r}"
            fix = "let the edge lead to the node that follows"
            findings.add(IssueCode.EDGE_INTO_START, (*entry.path, "target"), message, fix=fix)
        triple = (edge.source, edge.handle, edge.target)
        if triple in seen:
            message = f"edge {seen[triple]} already leads from {edge.source!r} to {edge.target!r}"
            findings.add(IssueCode.DUPLICATE_EDGE, entry.path, message, fix="remove one of them")
        seen.setdefault(triple, entry.index)


def _check_handle(entry: DraftEdge, nodes: dict[str, DraftNode], findings: Findings) -> None:
    edge = entry.edge
    source = nodes.get(edge.source)
    handles = source.handles if source else None
    if handles is None or edge.handle in handles:
        return
    path = (*entry.path, "handle" if "handle" in entry.edge.model_fields_set else "source")
    message = f"node {edge.source!r} has no handle {quoted(edge.handle)}"
    fix = findings.instead(edge.handle, handles) if handles else "an end node has no way out"
    findings.add(IssueCode.UNKNOWN_HANDLE, path, message, fix=fix, node_id=edge.source)


def _check_fan_out(flow: Flow, findings: Findings) -> None:
    counts = Counter(edge.source for edge in flow.edges)
    for name, count in counts.items():
        if count > MAX_FAN_OUT:
            message = f"{count} edges leave node {name!r}; at most {MAX_FAN_OUT} are allowed"
            fix = "spread them over several nodes"
            findings.add(IssueCode.TOO_MANY_EDGES, flow.nodes[name].path, message, fix=fix, node_id=name)


def _check_cycles(flow: Flow, findings: Findings) -> None:
    if len(flow.order) == len(flow.nodes):
        return
    for cycle in cycles(list(flow.nodes), flow.successors):
        shown = cycle if len(cycle) <= 12 else [*cycle[:10], "…", cycle[-1]]
        message = f"edges lead in a circle: {' → '.join([*shown, cycle[0]])}"
        fix = f"remove one of these edges, for example {cycle[-1]!r} → {cycle[0]!r}"
        findings.add(IssueCode.CYCLE, flow.nodes[cycle[0]].path, message, fix=fix, node_id=cycle[0])


def _check_reach(flow: Flow, findings: Findings) -> None:
    used = {(edge.source, edge.handle) for edge in flow.edges}
    ending = reachable(flow.ends, reverse(flow.nodes, flow.successors))
    onward = {(edge.source, edge.handle) for edge in flow.edges if edge.target in ending}
    for name, node in flow.nodes.items():
        if flow.starts and name not in flow.active:
            message = f"no path leads from {flow.starts[0]!r} to node {name!r}"
            fix = "add an edge to it, or remove it"
            findings.add(IssueCode.UNREACHABLE_NODE, node.path, message, fix=fix, node_id=name)
        caught = (ERROR,) if (name, ERROR) in used else ()
        for way in (*(node.ways_out or ()), *caught) if flow.ends else ():
            if (name, way) not in onward:
                message = f"no path leads from handle {way!r} of node {name!r} to an end"
                fix = f'add an edge, for example {{"source": "{name}", "target": "{flow.ends[0]}"}}'
                findings.add(IssueCode.NO_PATH_TO_END, node.path, message, fix=fix, node_id=name)


def _check_ends(flow: Flow, findings: Findings) -> None:
    """Ends must exclude one another; one report per end is enough."""
    if flow.branches is None or len(flow.ends) > MAX_ENDS:
        return
    known: list[tuple[str, list[Cube]]] = []
    for name in flow.ends:
        ways = flow.branches.ways(name) if name in flow.active else None
        if ways is None:
            continue
        cubes = [way.cube for way in ways]
        for other, theirs in known:
            if flow.branches.exclusive(cubes, theirs) is False:
                message = f"a run can reach both end {other!r} and end {name!r}"
                fix = "join the branches into one end, or make them exclude one another"
                findings.add(IssueCode.MULTIPLE_ENDS, flow.nodes[name].path, message, fix=fix, node_id=name)
                break
        known.append((name, cubes))
