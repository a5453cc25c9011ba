"""`template`: text made of other values."""

from __future__ import annotations

from typing import Any, ClassVar

from app.agent.core.base import NodeConfig, Outputs, node
from app.agent.core.scope import Scope
from app.agent.graph.references import Template


class TemplateConfig(NodeConfig):
    """Text with references filled in."""

    type: ClassVar[str] = "template"
    example: ClassVar[dict[str, Any]] = {"text": "You asked: {{ inputs.question }}"}

    text: Template


@node(TemplateConfig, pure=True, outputs={"text": str})
async def template(config: TemplateConfig, scope: Scope) -> Outputs:
    return {"text": config.text.text(scope)}
