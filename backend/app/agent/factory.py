"""The one place that composes an executable agent from a document."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.executable import ExecutableAgent, load_engine
from app.agent.graph.schema import AgentGraph


class AgentFactory:
    """Executable agents by content hash, the most recently used `capacity` of them.

    `checkpointer` makes LangGraph's saver once the engine is loaded; one is enough for all.

    An agent holds nothing of a tenant or a run, so equal documents share one.
    """

    def __init__(
        self,
        compiler: AgentCompiler | None = None,
        *,
        capacity: int = 256,
        checkpointer: Callable[[], Any] | None = None,
    ) -> None:
        self._compiler = compiler or AgentCompiler()
        self._capacity = capacity
        self._checkpointer = checkpointer
        self._built: OrderedDict[str, ExecutableAgent] = OrderedDict()

    def build(self, graph: AgentGraph | Mapping[str, Any], content_hash: str) -> ExecutableAgent:
        """`content_hash` is `graph.content_hash`, as stored with the version. Raises `InvalidGraph`."""
        if agent := self.built(content_hash):
            return agent
        agent = ExecutableAgent(self._compiler.compile(graph), checkpointer=self._checkpointer)
        self._built[content_hash] = agent
        while len(self._built) > self._capacity:
            self._built.popitem(last=False)
        return agent

    def built(self, content_hash: str) -> ExecutableAgent | None:
        """The agent, where it was built already and not forgotten since."""
        agent = self._built.get(content_hash)
        if agent is not None:
            self._built.move_to_end(content_hash)
        return agent

    async def warm_up(self) -> None:
        """Loads the engine ahead of the first run, off the event loop."""
        await load_engine()
