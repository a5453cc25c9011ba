"""Which nodes run together: the conditions under which each node is active, as far as they can be proven.

Every node that has several ways out takes one of them per run, so a node's condition is a disjunction
of cubes `{(node, handle), …}`. Cubes merge where all ways out of a node lead on, so that graphs which
branch and join again stay small. A node reached in too many ways is left unknown (None), and so is
what comes after the allowance of work is spent: deciding such questions is as hard as SAT.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Choice = tuple[str, str]
"""A node and the handle it leaves by."""
Cube = frozenset[Choice]

MAX_WAYS = 64
ALLOWANCE = 3_000_000
"""Choices looked at, over a whole graph: about half a second."""
ALWAYS: Cube = frozenset()


@dataclass(frozen=True, slots=True)
class Way:
    """One way to become active: the choices it takes, and (as bits) the nodes surely finished by then."""

    cube: Cube
    finished: int


@dataclass(frozen=True, slots=True)
class Arrival:
    """An edge into a node, seen from the node."""

    source: str
    handle: str


class Branches:
    """Ways of every node, filled in topological order by `enter`."""

    def __init__(self, order: Sequence[str], handles: Mapping[str, tuple[str, ...]]) -> None:
        self._bit = {node: 1 << index for index, node in enumerate(order)}
        self._handles = handles
        self._ways: dict[str, tuple[Way, ...] | None] = {}
        self._before: dict[str, int] = {}
        self._left = ALLOWANCE

    @property
    def complete(self) -> bool:
        """Whether everything could be proven."""
        return self._left >= 0 and None not in self._ways.values()

    def enter(self, node: str, arrivals: Sequence[Arrival], *, waits_for_all: bool) -> None:
        """Derives the ways of `node` from those of its sources."""
        if not arrivals:
            self._ways[node], self._before[node] = (Way(ALWAYS, 0),), 0
            return
        before = everyone = 0
        for arrival in arrivals:
            before |= self._bit[arrival.source] | self._before[arrival.source]
        self._before[node] = before
        if waits_for_all:
            for arrival in arrivals:
                everyone |= self._bit[arrival.source] | self._surely_finished(arrival.source)
        found: set[Way] | None = set()
        for arrival in arrivals:
            ways = self._ways[arrival.source]
            if ways is None or found is None or len(found) > 4 * MAX_WAYS or self._left < 0:
                found = None
                break
            self._left -= sum(1 + len(way.cube) for way in ways)
            bits = everyone | self._bit[arrival.source]
            found |= {Way(self.cube(way.cube, arrival), way.finished | bits) for way in ways}
        self._ways[node] = self._merged(found) if found is not None else None

    def precedes(self, node: str, other: str) -> bool:
        """Whether a path leads from `node` to `other`."""
        return bool(self._before[other] & self._bit[node])

    def ways(self, node: str) -> tuple[Way, ...] | None:
        return self._ways[node]

    def finished_before(self, way: Way, node: str) -> bool:
        return bool(way.finished & self._bit[node])

    def cube(self, cube: Cube, choice: Arrival) -> Cube:
        """`cube` and the choice, which is none where the node has just one way out."""
        if len(self._handles[choice.source]) == 1:
            return cube
        return cube | {(choice.source, choice.handle)}

    def after(self, node: str, handles: Iterable[str]) -> list[Cube] | None:
        """When `node` has run and left by one of `handles`; None where unknown."""
        ways = self._ways[node]
        if ways is None:
            return None
        self._left -= sum(1 + len(way.cube) for way in ways)
        return [self.cube(way.cube, Arrival(node, handle)) for way in ways for handle in handles]

    def implies(self, cube: Cube, alternatives: Iterable[Cube]) -> bool:
        """Whether at least one of `alternatives` holds whenever `cube` does (True if too hard to tell)."""
        return self._covered([other - cube for other in alternatives if not clash(cube, other)])

    def exclusive(self, one: Sequence[Cube], others: Sequence[Cube]) -> bool | None:
        """Whether no run satisfies both disjunctions; None if too hard to tell."""
        self._left -= sum(1 + len(cube) for cube in one) * len(others)
        if self._left < 0:
            return None
        return all(clash(cube, other) for cube in one for other in others)

    def _covered(self, cubes: list[Cube]) -> bool:
        """Whether the disjunction of `cubes` is always true, by trying each way out of one node."""
        self._left -= sum(1 + len(cube) for cube in cubes)
        if ALWAYS in cubes or self._left < 0:
            return True
        if not cubes:
            return False
        node = min(cubes[0])[0]
        for handle in self._handles[node]:
            chosen: Cube = frozenset({(node, handle)})
            if not self._covered([cube - chosen for cube in cubes if not clash(cube, chosen)]):
                return False
        return True

    def _surely_finished(self, node: str) -> int:
        ways = self._ways[node]
        bits = -1 if ways else 0
        for way in ways or ():
            bits &= way.finished
        return bits

    def _merged(self, ways: set[Way]) -> tuple[Way, ...] | None:
        by_finished: dict[int, set[Cube]] = {}
        for way in ways:
            by_finished.setdefault(way.finished, set()).add(way.cube)
        merged = tuple(
            Way(cube, finished) for finished, cubes in by_finished.items() for cube in self._joined(cubes)
        )
        return merged if len(merged) <= MAX_WAYS else None

    def _joined(self, cubes: set[Cube]) -> set[Cube]:
        """Cubes that differ only in which way out of one node they take become one without it."""
        if len(cubes) == 1:
            return cubes
        self._left -= sum(len(cube) ** 2 for cube in cubes)
        todo = sorted(cubes, key=len, reverse=True) if self._left >= 0 else []
        while todo:
            cube = todo.pop()
            if cube not in cubes:
                continue
            for node, _ in cube:
                rest = frozenset(choice for choice in cube if choice[0] != node)
                family = {rest | {(node, handle)} for handle in self._handles[node]}
                if family <= cubes:
                    cubes -= family
                    cubes.add(rest)
                    todo.append(rest)
                    break
        if ALWAYS in cubes:
            return {ALWAYS}
        return {cube for cube in cubes if not any(other < cube for other in cubes)}


def clash(one: Cube, other: Cube) -> bool:
    """Whether the two need different ways out of one node, so that no run has both."""
    chosen = dict(one)
    return any(chosen.get(node, handle) != handle for node, handle in other)
