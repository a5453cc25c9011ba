"""Which of the tools behind one name is meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from app.agent.core.base import NodeError
from app.agent.core.interfaces import Tool
from app.agent.graph.issues import listing

AnyTool = TypeVar("AnyTool", bound=Tool)


class UnknownOperation(NodeError):
    """What stands behind the name offers no such operation, or several of which none was named."""

    status, code, title = 422, "unknown_operation", "Unknown operation"


def chosen(tools: Sequence[AnyTool], operation: str | None, *, of: str) -> AnyTool:
    """The operation of that name, which may be left out where there is only one."""
    if operation is None and len(tools) == 1:
        return tools[0]
    by_name = {tool.definition.name: tool for tool in tools}
    if operation in by_name:
        return by_name[operation]
    asked = f"has no operation {operation!r}" if operation else "offers several operations: name one"
    raise UnknownOperation(f"the tool {of!r} {asked} (valid: {listing(sorted(by_name)) or 'none'})")
