"""Directed graphs: order, reachability, cycles."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from hypothesis import given
from hypothesis import strategies as st

from app.core.dag import cycles, reachable, reverse, topological_order

Edges = dict[int, list[int]]


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[int], Edges]:
    nodes = list(range(draw(st.integers(1, 8))))
    ends = st.sampled_from(nodes)
    pairs = draw(st.lists(st.tuples(ends, ends), max_size=14))
    return nodes, {node: [b for a, b in pairs if a == node] for node in nodes}


class TestOrder:
    def test_keeps_the_given_order_where_it_can(self) -> None:
        assert topological_order(["c", "a", "b"], {"b": ["c"]}) == ["a", "b", "c"]

    @given(graphs())
    def test_is_complete_exactly_for_acyclic_graphs(self, graph: tuple[list[int], Edges]) -> None:
        nodes, successors = graph
        order = topological_order(nodes, successors)
        try:
            TopologicalSorter(reverse(nodes, successors)).prepare()
        except CycleError:
            assert len(order) < len(nodes)
        else:
            assert sorted(order) == nodes
            assert all(order.index(a) < order.index(b) for a in nodes for b in successors[a])

    def test_a_long_chain_needs_no_recursion(self) -> None:
        count = 20_000
        chain = {i: [i + 1] for i in range(count - 1)}
        assert topological_order(range(count), chain) == list(range(count))
        assert cycles(range(count), chain | {count - 1: [0]}) == [list(range(count))]


class TestReachable:
    def test_includes_the_starts(self) -> None:
        assert reachable(["a"], {"a": ["b"], "c": ["a"]}) == {"a", "b"}


class TestCycles:
    def test_one_per_component_in_order(self) -> None:
        successors = {"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["e"], "e": ["c"], "f": ["f"]}
        assert cycles(list("abcdef"), successors) == [["a", "b"], ["c", "d", "e"], ["f"]]

    @given(graphs())
    def test_finds_some_exactly_if_the_order_is_incomplete(self, graph: tuple[list[int], Edges]) -> None:
        nodes, successors = graph
        found = cycles(nodes, successors)
        assert bool(found) == (len(topological_order(nodes, successors)) < len(nodes))
        for cycle in found:
            assert all(b in successors[a] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
