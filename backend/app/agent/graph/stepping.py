"""One step of a plan: who is active, what runs, what the run's state becomes."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import Any

from app.agent.core.state import RunState, Update, Write
from app.agent.graph.attempts import execute, skip
from app.agent.graph.plan import Plan, PlannedNode, Step
from app.agent.graph.run_context import RunContext
from app.agent.graph.scope import Values

GATE = "?"
"""Marks, after a node's id, the gate before it: no node id can contain it."""


async def run_step(step: Step, state: RunState, run: RunContext) -> Update:
    """Runs the step's nodes in turn. A node to which no taken edge leads is skipped, and so is,
    by the same rule, whatever depends on it alone."""
    outputs: dict[str, dict[str, Any]] = {}
    handles: dict[str, str | None] = {}
    writes: list[Write] = []
    known = ChainMap(handles, state["handles"])
    finished: ChainMap[str, Any] = ChainMap(outputs, state["outputs"])
    values = Values({"inputs": state["inputs"], "session": run.session, "state": state["state"]}, finished)
    for node in step.nodes:
        if not is_taken(node, known):
            handles[node.id] = None
            await skip(node, run)
            continue
        outcome = await execute(node, values, run)
        handles[node.id] = outcome.handle
        outputs[node.id] = outcome.outputs
        writes.extend(outcome.writes)
    return Update(outputs=outputs, handles=handles, state=writes)


async def run_alone(plan: Plan, inputs: Mapping[str, Any], run: RunContext) -> RunState:
    """Runs a plan of one step."""
    begin = beginning(plan, inputs)
    update = await run_step(plan.steps[0], begin, run)
    return RunState(
        inputs=begin["inputs"],
        state=begin["state"],  # nobody is left to read what the step wrote
        outputs=update["outputs"],
        handles=update["handles"],
    )


def beginning(plan: Plan, inputs: Mapping[str, Any]) -> RunState:
    """The state before the first step."""
    initial = {name: field.initial for name, field in plan.state.items() if field.initial is not None}
    return RunState(inputs=dict(inputs), state=initial, outputs={}, handles={})


def is_taken(node: PlannedNode, handles: ChainMap[str, str | None] | dict[str, str | None]) -> bool:
    """Whether some edge into the node carries the token `taken`; a start has no edges and always runs."""
    return not node.arrivals or any(
        handles.get(arrival.source) == arrival.handle for arrival in node.arrivals
    )


def gate(step: Step, handles: dict[str, str | None]) -> bool:
    """Whether a step that joins on `any` begins now: on the first taken token, or, to be skipped,
    when the last token was not taken either. Only once."""
    node = step.nodes[0]
    if node.id + GATE in handles:
        return False
    return is_taken(node, handles) or all(arrival.source in handles for arrival in node.arrivals)
