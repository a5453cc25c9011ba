"""Directed graphs of hashable keys: order, reachability, cycles. Linear in nodes + edges, no recursion."""

from __future__ import annotations

import heapq
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)


def reverse(nodes: Iterable[Key], successors: Mapping[Key, Sequence[Key]]) -> dict[Key, list[Key]]:
    """The same edges the other way round; every node has an entry."""
    back: dict[Key, list[Key]] = {node: [] for node in nodes}
    for node in back:
        for target in successors.get(node, ()):
            back[target].append(node)
    return back


def reachable(starts: Iterable[Key], successors: Mapping[Key, Sequence[Key]]) -> set[Key]:
    """Everything that can be reached from `starts`, themselves included."""
    seen = set(starts)
    todo = list(seen)
    while todo:
        for target in successors.get(todo.pop(), ()):
            if target not in seen:
                seen.add(target)
                todo.append(target)
    return seen


def topological_order(nodes: Sequence[Key], successors: Mapping[Key, Sequence[Key]]) -> list[Key]:
    """Sources before targets; where both orders are right, as in `nodes` (Kahn 1962).

    Nodes on a cycle, and what lies only behind one, are left out: the order is complete exactly
    when it is as long as `nodes`.
    """
    place = {node: index for index, node in enumerate(nodes)}
    waiting = dict.fromkeys(nodes, 0)
    for node in nodes:
        for target in successors.get(node, ()):
            waiting[target] += 1
    ready = [place[node] for node in nodes if waiting[node] == 0]
    order: list[Key] = []
    while ready:
        node = nodes[heapq.heappop(ready)]
        order.append(node)
        for target in successors.get(node, ()):
            waiting[target] -= 1
            if waiting[target] == 0:
                heapq.heappush(ready, place[target])
    return order


def cycles(nodes: Sequence[Key], successors: Mapping[Key, Sequence[Key]]) -> list[list[Key]]:
    """One cycle per strongly connected component, each starting with its first node in `nodes`' order."""
    place = {node: index for index, node in enumerate(nodes)}
    found = [_cycle_in(component, successors, place) for component in _components(nodes, successors)]
    return sorted((cycle for cycle in found if cycle), key=lambda cycle: place[cycle[0]])


def _cycle_in(
    component: set[Key], successors: Mapping[Key, Sequence[Key]], place: Mapping[Key, int]
) -> list[Key]:
    """The shortest way from the component's first node back to itself; empty where there is none."""
    first = min(component, key=place.__getitem__)
    came_from: dict[Key, Key] = {}
    level = [first]
    while level:
        following: list[Key] = []
        for node in level:
            for target in successors.get(node, ()):
                if target == first:
                    return _walk_back(node, first, came_from)
                if target in component and target not in came_from:
                    came_from[target] = node
                    following.append(target)
        level = following
    return []


def _walk_back(node: Key, first: Key, came_from: Mapping[Key, Key]) -> list[Key]:
    path = [node]
    while path[-1] != first:
        path.append(came_from[path[-1]])
    return path[::-1]


def _components(nodes: Sequence[Key], successors: Mapping[Key, Sequence[Key]]) -> list[set[Key]]:
    """Strongly connected components (Kosaraju): finish order forwards, then sweep backwards."""
    seen: set[Key] = set()
    finished: list[Key] = []
    for root in nodes:
        if root in seen:
            continue
        seen.add(root)
        stack = [(root, iter(successors.get(root, ())))]
        while stack:
            node, targets = stack[-1]
            unseen = next((target for target in targets if target not in seen), None)
            if unseen is None:
                finished.append(node)
                stack.pop()
            else:
                seen.add(unseen)
                stack.append((unseen, iter(successors.get(unseen, ()))))
    return _sweep(finished, reverse(nodes, successors))


def _sweep(finished: list[Key], predecessors: Mapping[Key, Sequence[Key]]) -> list[set[Key]]:
    assigned: set[Key] = set()
    components: list[set[Key]] = []
    for root in reversed(finished):
        if root in assigned:
            continue
        component: set[Key] = set()
        todo = [root]
        assigned.add(root)
        while todo:
            node = todo.pop()
            component.add(node)
            for source in predecessors[node]:
                if source not in assigned:
                    assigned.add(source)
                    todo.append(source)
        components.append(component)
    return components
