"""Steps of a plan: who is active, what runs when, what the run's state becomes."""

from __future__ import annotations

import asyncio
from collections import ChainMap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from app.agent.core.state import RunState, Update, Write, apply
from app.agent.graph.attempts import execute, skip
from app.agent.graph.crew import Crew
from app.agent.graph.plan import Plan, PlannedNode, Step
from app.agent.graph.run_context import Frame
from app.agent.graph.scope import Values
from app.core.errors import AppError


class AmbiguousEnd(AppError):
    """Not exactly one end was reached: only in graphs that branch too much to be proven sound."""

    code = "ambiguous_end"


async def run_step(step: Step, state: RunState, frame: Frame) -> Update:
    """Runs the step's nodes, side by side where nothing orders them.

    A node to which no taken edge leads is skipped, and so is, by the same rule, whatever depends on it alone.
    Raises what a node raises; by then the others are cancelled. Raises `Suspended` where some nodes wait for
    a person or a time, and nothing else is left to do.
    """
    progress = _Progress(step, state, frame)
    await progress.to_the_end()
    return progress.update()


async def run_alone(plan: Plan, inputs: Mapping[str, Any], frame: Frame) -> RunState:
    """Runs a plan of one step."""
    begin = beginning(plan, inputs)
    update = await run_step(plan.steps[0], begin, frame)
    return RunState(
        inputs=begin["inputs"],
        state=begin["state"],  # nobody is left to read what the step wrote
        outputs=update["outputs"],
        handles=update["handles"],
    )


async def run_inside(frame: Frame, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Runs the graph inside of a node; the output of the end that it reached. What it did is journalled."""
    state = await run_through(inputs, frame)
    return state["outputs"][end_reached(frame.plan, state)]


async def run_through(inputs: Mapping[str, Any], frame: Frame) -> RunState:
    """Runs a plan step by step; nothing is kept in between but by the journal."""
    state = beginning(frame.plan, inputs)
    for step in frame.plan.steps:
        update = await run_step(step, state, frame)
        reduced = apply(frame.plan.reducers)(state["state"], update["state"])
        state = RunState(
            inputs=state["inputs"],
            state=reduced,
            outputs=state["outputs"] | update["outputs"],
            handles=state["handles"] | update["handles"],
        )
    return state


def end_reached(plan: Plan, final: RunState) -> str:
    """Raises `AmbiguousEnd`."""
    reached = [name for name in plan.ends if name in final["outputs"]]
    if len(reached) != 1:
        raise AmbiguousEnd(
            "no end was reached" if not reached else f"{len(reached)} ends were reached: {reached}"
        )
    return reached[0]


def beginning(plan: Plan, inputs: Mapping[str, Any]) -> RunState:
    """The state before the first step."""
    initial = {name: field.initial for name, field in plan.state.items() if field.initial is not None}
    return RunState(inputs=dict(inputs), state=initial, outputs={}, handles={})


@dataclass(slots=True)
class _Progress:
    """A step on its way. Each node begins when the tokens it waits for are there, whatever runs beside it."""

    step: Step
    begin: RunState
    frame: Frame
    outputs: dict[str, dict[str, Any]] = field(default_factory=dict)
    handles: dict[str, str | None] = field(default_factory=dict)
    writes: dict[str, tuple[Write, ...]] = field(default_factory=dict)
    read: dict[str, Values] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)

    async def to_the_end(self) -> None:
        crew = Crew[PlannedNode, list[PlannedNode]](self.frame.run.lookout)
        ready = self._ready(self.step.nodes)
        try:
            while ready or crew.working:
                if len(ready) == 1 and crew.idle:  # a chain needs no tasks
                    ready = await self._run(ready[0])
                    continue
                for node in ready:
                    crew.begin(node, self._run(node))
                ended, able = await crew.changes()
                ready = [*_followers(ended), *able]
        finally:
            await crew.dismiss()
        if crew.waiting:
            raise crew.suspended()

    async def _run(self, node: PlannedNode) -> list[PlannedNode]:
        """Runs or skips the node; answers who can begin now because of it. Raises `Suspended`."""
        handle = None
        if is_taken(node, self._known):
            outcome = await execute(node, self._values(node), self.frame)
            self.outputs[node.id], self.writes[node.id] = outcome.outputs, outcome.writes
            handle = outcome.handle
        else:
            await skip(node, self.frame)
        self.handles[node.id] = handle
        return self._ready(self.step.followers[node.id])

    def _ready(self, nodes: Iterable[PlannedNode]) -> list[PlannedNode]:
        """Who of `nodes` begins now; each is answered once."""
        known = self._known
        ready = [node for node in nodes if node.id not in self.begun and may_begin(node, known)]
        self.begun.update(node.id for node in ready)
        return ready

    @property
    def _known(self) -> ChainMap[str, str | None]:
        return ChainMap(self.handles, self.begin["handles"])

    def _values(self, node: PlannedNode) -> Values:
        """As they are when the node begins, for the first time: what ends later is none of them."""
        if (read := self.read.get(node.id)) is not None:
            return read
        sources = {"inputs": self.begin["inputs"], "state": self._state(node), **self.frame.sources}
        finished: ChainMap[str, Any] = ChainMap(self.outputs, self.begin["outputs"])
        values = Values(sources, {name: finished[name] for name in node.reads if name in finished})
        if node.asks:
            self.read[node.id] = values
        return values

    def _state(self, node: PlannedNode) -> dict[str, Any]:
        """As those before the node left it: what runs beside it is not seen, however fast it was."""
        if not self.writes or not any(self.writes.values()):
            return self.begin["state"]
        before = self.step.before(node)
        return apply(self.frame.plan.reducers)(self.begin["state"], self._written(before))

    def _written(self, nodes: Iterable[PlannedNode]) -> list[Write]:
        return [write for node in nodes for write in self.writes.get(node.id, ())]

    def update(self) -> Update:
        """Writes in the order of the plan, whoever was first."""
        return Update(outputs=self.outputs, handles=self.handles, state=self._written(self.step.nodes))


def _followers(ended: Iterable[tuple[PlannedNode, asyncio.Task[list[PlannedNode]]]]) -> list[PlannedNode]:
    """Raises the failure of the one that began first."""
    return [node for _, task in ended for node in task.result()]


def may_begin(node: PlannedNode, handles: Mapping[str, str | None]) -> bool:
    """Whether all tokens that the node waits for are there; for one that joins on `any`, a taken one is
    enough."""
    if node.first_wins and is_taken(node, handles):
        return True
    return all(arrival.source in handles for arrival in node.arrivals)


def is_taken(node: PlannedNode, handles: Mapping[str, str | None]) -> bool:
    """Whether some edge into the node carries the token `taken`; a start has no edges and always runs."""
    return not node.arrivals or any(
        handles.get(arrival.source) == arrival.handle for arrival in node.arrivals
    )
