"""`retrieve`: the passages of a collection that fit a query."""

from __future__ import annotations

from typing import Any, ClassVar

from app.agent.config import RetrievalSettings
from app.agent.core.base import Effect, NodeConfig, NodeError, Outputs, node
from app.agent.core.interfaces import Passage
from app.agent.core.scope import Scope
from app.agent.graph.references import Template


class RetrieveConfig(NodeConfig, RetrievalSettings):
    """Searches a bound collection."""

    type: ClassVar[str] = "retrieve"
    example: ClassVar[dict[str, Any]] = {"collection": "kb", "query": "{{ inputs.question }}", "top_k": 6}

    query: Template


@node(RetrieveConfig, effect=Effect.READ, outputs={"results": list[Passage]})
async def retrieve(config: RetrieveConfig, scope: Scope) -> Outputs:
    """Raises `NodeError` (`bad_request`) where the query is blank."""
    query = config.query.text(scope)
    if not query.strip():
        raise NodeError("the query is empty", code="bad_request")
    passages = await scope.search(
        config.collection,
        query,
        top_k=config.top_k,
        mode=config.mode,
    )
    return {"results": passages}
