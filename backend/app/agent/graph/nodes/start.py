"""`start`: where a run begins. Its values are read as `inputs.<name>`."""

from __future__ import annotations

from typing import ClassVar

from app.agent.core.base import NodeConfig, Outputs, node
from app.agent.core.scope import Scope


class StartConfig(NodeConfig):
    """Where a run begins; the inputs are read as `inputs.<name>`."""

    type: ClassVar[str] = "start"


@node(StartConfig, pure=True, fails=False, outputs={})
async def start(config: StartConfig, scope: Scope) -> Outputs:
    return {}
