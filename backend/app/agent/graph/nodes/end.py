"""`end`: where a run ends, and what it returns."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from app.agent.core.base import NodeConfig, Outputs, node
from app.agent.core.scope import Scope
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.limits import exceeds, too_much
from app.agent.graph.references import MAX_RENDERED, RenderedTooLarge


class EndConfig(NodeConfig):
    """Where a run ends: `output` is the run's result."""

    type: ClassVar[str] = "end"
    example: ClassVar[dict[str, Any]] = {"output": {"answer": "{{ inputs.question }}"}}

    output: dict[str, JsonTemplate] = Field(default_factory=dict)

    def handles(self) -> tuple[str, ...]:
        """None: nothing comes after it."""
        return ()


@node(EndConfig, pure=True, fails=False, outputs={})
async def end(config: EndConfig, scope: Scope) -> Outputs:
    """Raises `RenderedTooLarge`: a large value can be named many times, and is sent out each time."""
    output = {name: template.value(scope) for name, template in config.output.items()}
    if exceeds(output, max_text=MAX_RENDERED):
        raise RenderedTooLarge(f"the output comes to more than {too_much(MAX_RENDERED)}")
    return output
