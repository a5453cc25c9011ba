"""`tool`: one call of a tool of the project."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field, JsonValue

from app.agent.core.base import Binds, Effect, NodeConfig, NodeError, Outputs, node
from app.agent.core.scope import Scope
from app.agent.graph.json_template import JsonTemplate
from app.agent.tools.choice import chosen

_QUOTED = 500


class ToolConfig(NodeConfig):
    """Calls a bound tool, and hands on what it gave.

    `operation` says which, where the tool offers several (an MCP server, an OpenAPI document). `arguments`
    are held against the tool's JSON Schema: when the graph is checked, as far as types tell, and before the
    call.
    `result` is what the tool gave, a JSON value; `text` the same as models read it. A tool that answers that
    it could not do what was asked fails the node with `tool_error`.

    A call counts as `write` unless the node's `effect` says otherwise: what a tool does may change after the
    graph was published. A call that writes has an idempotency key that is the same whenever it is repeated.
    """

    type: ClassVar[str] = "tool"
    example: ClassVar[dict[str, Any]] = {
        "tool": "crm",
        "operation": "find_customer",
        "arguments": {"name": "{{ inputs.question }}"},
    }

    tool: Annotated[str, Binds("tools")]
    operation: Annotated[str, Field(min_length=1, max_length=64)] | None = None
    arguments: Annotated[dict[str, JsonTemplate], Field(max_length=200)] = Field(default_factory=dict)

    def effect(self) -> Effect:
        return Effect.WRITE


@node(ToolConfig, effect=Effect.PURE, outputs={"result": JsonValue, "text": str})
async def tool(config: ToolConfig, scope: Scope) -> Outputs:
    """Raises `ToolFailed`; `NodeError` where there is no such operation, or the tool says that it failed."""
    meant = chosen(await scope.tools(config.tool), config.operation, of=config.tool)
    arguments = {name: value.value(scope) for name, value in config.arguments.items()}
    result = await scope.call_tool(meant, arguments)
    if result.is_error:
        said = " ".join(result.text.split())[:_QUOTED]
        raise NodeError(f"the tool {meant.definition.name!r} says: {said}", code="tool_error")
    return {"result": result.content, "text": result.text}
