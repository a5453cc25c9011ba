"""How much one run may do, whatever its graph says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """Items of a `map`, rounds of a `loop`, sub-agents inside of each other; of an `agent` node the tools
    that its model is offered, and the calls of them.
    """

    map_items: int = 10_000
    loop_rounds: int = 1_000
    agent_depth: int = 8
    offered_tools: int = 128
    tool_calls: int = 200
