"""`retrieval`: searches a collection of the project."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from app.agent.core.base import Effect
from app.agent.core.interfaces import Passage, ToolFailed, ToolResult
from app.agent.tools.kind import Naming, Offer, Operation, Request, ToolConfig, ToolPorts, tool_kind

_MOST = 50


class RetrievalTool(ToolConfig):
    """Searches `collection` (slug or id). Whoever calls it says what for, and may say how many passages."""

    kind: Literal["retrieval"] = "retrieval"
    collection: Annotated[str, Field(min_length=1, max_length=200)]
    top_k: Annotated[int, Field(strict=True, ge=1, le=_MOST)] = 6
    mode: Literal["hybrid", "dense", "keyword"] = "hybrid"

    def collections(self) -> tuple[str, ...]:
        return (self.collection,)


async def _offers(config: RetrievalTool, naming: Naming, _: ToolPorts) -> Offer:
    described = naming.description or f"Searches the documents of the collection {config.collection!r}."
    parameters = {
        "type": "object",
        "properties": {
            "query": {
                "type": "string", "description": "What to look for", "minLength": 1, "maxLength": 2000,
            },
            "top_k": {
                "type": "integer", "description": "How many passages", "minimum": 1, "maximum": _MOST,
                "default": config.top_k,
            },
        },
        "required": ["query"],
        "additionalProperties": False,
    }  # fmt: skip
    operation = Operation(name=naming.slug, description=described, parameters=parameters, effect=Effect.READ)
    return Offer((operation,))


@tool_kind("retrieval", RetrievalTool, offers=_offers)
async def call_retrieval(config: RetrievalTool, request: Request, ports: ToolPorts) -> ToolResult:
    query = request.arguments["query"]
    if not query.strip():
        raise ToolFailed("the query is empty", code="invalid_arguments")
    top_k = int(request.arguments["top_k"])
    found = await ports.retriever.search(config.collection, query, top_k=top_k, mode=config.mode)
    text = "\n\n".join(f"[{index}] {one.title}\n{one.text}" for index, one in enumerate(found, start=1))
    return ToolResult([_told(one) for one in found], text or "Nothing was found.")


def _told(passage: Passage) -> dict[str, object]:
    return {
        "document_id": str(passage.document_id),
        "chunk_id": str(passage.chunk_id),
        "title": passage.title,
        "text": passage.text,
        "page": passage.page,
        "score": passage.score,
        "metadata": dict(passage.metadata),
    }
