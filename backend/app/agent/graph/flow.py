"""How control flows through a draft: who follows whom, in which order, under which conditions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from app.agent.core.base import ERROR
from app.agent.graph.branches import Arrival, Branches, Cube
from app.agent.graph.draft import Draft, DraftNode
from app.agent.graph.issues import Budget, nearest
from app.agent.graph.policies import DefaultOutputs
from app.agent.graph.schema import Edge
from app.core.dag import reachable, topological_order

_OUTSIDE = "?"
"""A handle nobody takes: stands for the ways out of a node that could not be read."""


@dataclass(slots=True)
class Flow:
    """Only edges between existing nodes, by handles that exist, into no start; misspelt ones as meant.

    `branches` is None for cyclic graphs. `inner` are those of the graphs inside of nodes.
    `active` is what can be reached from the start; everything, as long as there is not just one.
    """

    draft: Draft
    nodes: dict[str, DraftNode]
    edges: list[Edge]
    successors: dict[str, list[str]] = field(default_factory=dict)
    arrivals: dict[str, list[Arrival]] = field(default_factory=dict)
    handles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)
    active: set[str] = field(default_factory=set)
    starts: list[str] = field(default_factory=list)
    ends: list[str] = field(default_factory=list)
    branches: Branches | None = None
    inner: dict[str, Flow] = field(default_factory=dict)

    def successful(self, node_id: str) -> list[Cube] | None:
        """When `node_id` has run and succeeded; None where unknown."""
        if self.branches is None:
            return None
        return self.branches.after(node_id, [way for way in self.handles[node_id] if way != ERROR])

    def failed(self, node_id: str) -> list[Cube] | None:
        """When `node_id` has handed on an error; None where unknown."""
        if self.branches is None or ERROR not in self.handles[node_id]:
            return None if self.branches is None else []
        return self.branches.after(node_id, [ERROR])


def flow_of(draft: Draft) -> Flow:
    nodes = draft.by_id
    flow = Flow(draft, nodes, list(_mended(draft, nodes)))
    flow.starts = [name for name, node in nodes.items() if _is_start(node)]
    flow.ends = [name for name, node in nodes.items() if node.type and node.type.name == "end"]
    flow.successors = {name: [] for name in nodes}
    flow.arrivals = {name: [] for name in nodes}
    catching: set[str] = set()
    for edge in flow.edges:
        if edge.target not in flow.successors[edge.source]:
            flow.successors[edge.source].append(edge.target)
        arrival = Arrival(edge.source, edge.handle)
        if arrival not in flow.arrivals[edge.target]:
            flow.arrivals[edge.target].append(arrival)
        if edge.handle == ERROR:
            catching.add(edge.source)
    used: dict[str, set[str]] = {name: set() for name in nodes}
    for edge in flow.edges:
        used[edge.source].add(edge.handle)
    for name, node in nodes.items():
        flow.handles[name] = _handles(node, used[name])
    flow.order = topological_order(list(nodes), flow.successors)
    flow.active = reachable(flow.starts, flow.successors) if len(flow.starts) == 1 else set(nodes)
    if len(flow.order) == len(nodes):
        flow.branches = _branches(flow)
    return flow


def _mended(draft: Draft, nodes: dict[str, DraftNode]) -> Iterator[Edge]:
    """The edges as they were probably meant, so that one misspelt name does not cut the graph in two."""
    budget, names = Budget(), list(nodes)
    for entry in draft.edges:
        edge = entry.edge
        source = edge.source if edge.source in nodes else nearest(edge.source, names, budget)
        target = edge.target if edge.target in nodes else nearest(edge.target, names, budget)
        if source is None or target is None or _is_start(nodes[target]):
            continue
        handles = nodes[source].handles
        known = handles is None or edge.handle in handles
        handle = edge.handle if known else nearest(edge.handle, handles or (), budget)
        if handle is not None:
            yield Edge(source=source, handle=handle, target=target)


def _is_start(node: DraftNode) -> bool:
    """Edges into one are reported for themselves, not for the circle that they close as well."""
    return node.type is not None and node.type.name == "start"


def _handles(node: DraftNode, used: set[str]) -> tuple[str, ...]:
    """The ways out that a run can take: `error` only where an edge catches it."""
    ways = node.ways_out
    if ways is None:
        return (*sorted(used), _OUTSIDE)
    defaulted = node.node is not None and isinstance(node.node.on_error, DefaultOutputs)
    return (*ways, ERROR) if ERROR in used and not defaulted else ways or (_OUTSIDE,)


def _branches(flow: Flow) -> Branches:
    branches = Branches(flow.order, flow.handles)
    for name in flow.order:
        if name not in flow.active:
            continue
        arrivals = [arrival for arrival in flow.arrivals[name] if arrival.source in flow.active]
        if name in flow.starts:
            arrivals = []
        node = flow.nodes[name].node
        branches.enter(name, arrivals, waits_for_all=node is None or node.join == "all")
    return branches
