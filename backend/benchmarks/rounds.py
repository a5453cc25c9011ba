"""Noise: sides take turns, so that whatever else the machine does meets all alike."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

Cost = dict[str, float]
"""What one round of a side cost, by clock: process names, `latency`, …"""
Side = Callable[[], Awaitable[Cost]]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Costs of every side, one per round."""

    costs: Mapping[str, list[Cost]]

    def least(self, side: str) -> Cost:
        """Per clock the cheapest round: noise only adds."""
        mine = self.costs[side]
        return {clock: min(cost[clock] for cost in mine) for clock in mine[0]}

    def spread(self, ours: str, floor: str, *clocks: str) -> float | None:
        """How far the ratios of the rounds are apart, relative to the lowest; None if there is one round."""
        pairs = zip(self.costs[ours], self.costs[floor], strict=True)
        sums = [(sum(a.get(c, 0) for c in clocks), sum(b.get(c, 0) for c in clocks)) for a, b in pairs]
        ratios = [mine / bare for mine, bare in sums if bare]
        return max(ratios) / min(ratios) - 1 if len(ratios) > 1 and min(ratios) > 0 else None


async def take_turns(sides: Mapping[str, Side], rounds: int) -> Rounds:
    """Runs each side once per round, in order."""
    costs: dict[str, list[Cost]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, side in sides.items():
            costs[name].append(await side())
    return Rounds(costs)
