"""Plan → LangGraph's `StateGraph`, which drives the steps and does nothing else.

Steps come one after the other: what runs side by side does so inside of one (`graph.stepping`), because
LangGraph lets whatever begins together end together before anything follows (ADR 12).

Importing this module imports LangGraph (seconds without bytecode): import it when first used.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from hashlib import sha256
from typing import Annotated, Any, cast

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.graph import START, StateGraph
from langgraph.graph.state import CompiledStateGraph
from langgraph.runtime import Runtime
from langgraph.types import Durability
from typing_extensions import TypedDict

from app.agent.core.state import RunState, Update, apply, join
from app.agent.graph.plan import Plan, Step
from app.agent.graph.run_context import Frame
from app.agent.graph.stepping import beginning, run_step

Graph = CompiledStateGraph[Any, Frame, Any, Any]


class Drive:
    """A plan ready to run, any number of times at once.

    The first state goes straight into the channels, and begins the first step: by `START` it would take a
    superstep and a checkpoint of its own.
    """

    def __init__(self, plan: Plan, checkpointer: BaseCheckpointSaver[Any] | None = None) -> None:
        self._plan = plan
        self._graph = _compiled(plan, checkpointer)
        self._triggers = self._graph.nodes[plan.steps[0].id].triggers
        self._graph.input_channels = [*RunState.__annotations__, *self._triggers]
        self._durability: Durability | None = None
        if checkpointer is not None:
            self._durability = "exit" if plan.durability == "exit" else "sync"
        self._shape = _shape(plan)
        self._limit = 10 + len(plan.steps)  # a step takes one superstep

    async def __call__(self, inputs: Mapping[str, Any], frame: Frame) -> RunState:
        """Runs to the end. Raises what a step raises.

        A run that goes on begins after its last checkpoint, or anew where it has none, or one of another plan
        (an older release's): what the journal recalls is not done again either way.
        """
        config: RunnableConfig = {
            "recursion_limit": self._limit,
            "configurable": {"thread_id": frame.run.run_id},
            "metadata": {"plan": self._shape},
        }
        begin: dict[str, Any] | None = {**beginning(self._plan, inputs), **dict.fromkeys(self._triggers)}
        if frame.run.past.continued and await self._begun(config):
            begin = None
        final = await self._graph.ainvoke(
            begin, config, context=frame, durability=self._durability, version="v2"
        )
        return cast(RunState, final.value)

    async def _begun(self, config: RunnableConfig) -> bool:
        saver = self._graph.checkpointer
        if not isinstance(saver, BaseCheckpointSaver):
            return False
        found = await saver.aget_tuple(config)
        if found is None or dict(found.metadata).get("plan") == self._shape:
            return found is not None
        await saver.adelete_thread(config["configurable"]["thread_id"])
        return False


def _shape(plan: Plan) -> str:
    """The same for plans whose checkpoints fit each other."""
    steps = ";".join(",".join(node.id for node in step.nodes) for step in plan.steps)
    return sha256(steps.encode()).hexdigest()[:16]


def _compiled(plan: Plan, checkpointer: BaseCheckpointSaver[Any] | None) -> Graph:
    graph: StateGraph[Any, Frame, Any, Any] = StateGraph(_channels(plan), context_schema=Frame)
    before = START
    for step in plan.steps:
        graph.add_node(step.id, partial(_run, step))  # of a closure LangGraph would read types and bytecode
        graph.add_edge(before, step.id)
        before = step.id
    return graph.compile(checkpointer=checkpointer)


def _channels(plan: Plan) -> Any:
    return TypedDict(  # type: ignore[operator]
        "RunChannels",
        {
            "inputs": dict[str, Any],
            "state": Annotated[dict[str, Any], apply(plan.reducers)],
            "outputs": Annotated[dict[str, Any], join],
            "handles": Annotated[dict[str, Any], join],
        },
    )


async def _run(step: Step, state: RunState, runtime: Runtime[Frame]) -> Update:
    return await run_step(step, state, runtime.context)
