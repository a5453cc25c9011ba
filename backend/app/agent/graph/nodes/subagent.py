"""`subagent`: a published agent as a node."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from app.agent.core.base import Binds, NodeConfig, Outputs, node
from app.agent.core.scope import Scope
from app.agent.graph.json_template import JsonTemplate


class SubagentConfig(NodeConfig):
    """Runs a published agent as a part of this run: one journal, one log, one bill.

    `agent` names an entry of `bindings.agents`, the slug of an agent: when this one is published, it is
    locked to the version that is live then; `slug@3` locks it to version 3.

    `output` is the agent's output, `answer` the text that its interface calls the answer, null if it has
    none. What the agent writes as its answer is shown as it comes, where it is this agent's answer, too.
    """

    type: ClassVar[str] = "subagent"
    delegates: ClassVar[bool] = True

    example: ClassVar[dict[str, Any]] = {"agent": "reviewer", "inputs": {"draft": "{{ inputs.draft }}"}}

    agent: Annotated[str, Binds("agents")]
    inputs: dict[str, JsonTemplate] = Field(default_factory=dict)


@node(SubagentConfig, streams="answer", outputs={"output": dict[str, Any], "answer": str | None})
async def subagent(config: SubagentConfig, scope: Scope) -> Outputs:
    """Raises what a node of the agent that fails it raises, and `NodeError` (`invalid_input`, `too_deep`)."""
    inputs = {name: value.value(scope) for name, value in config.inputs.items()}
    came = await scope.call_agent(config.agent, inputs)
    if came.answer and not scope.has_shown(came.answer):
        await scope.say(came.answer)
    return {"output": came.output, "answer": came.answer}
