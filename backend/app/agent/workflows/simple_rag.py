"""Question → passages of one collection → answer with citations: the ready-made graph for documents."""

from __future__ import annotations

from app.agent.graph.schema import AgentGraph

INSTRUCTIONS = (
    "Answer the question from the given passages only. Mark each statement with its passage, like [1]. "
    "If the passages do not answer the question, say so."
)


def simple_rag(collection: str, model: str = "default-chat", *, top_k: int = 6) -> AgentGraph:
    """`collection` and `model` are slugs or ids; input `question`, outputs `answer` and `sources`."""
    return AgentGraph.model_validate(
        {
            "schema_version": "1",
            "inputs": {
                "type": "object",
                "properties": {"question": {"type": "string", "minLength": 1}},
                "required": ["question"],
            },
            "interface": {"message": "question", "answer": "answer"},
            "bindings": {"models": {"main": model}, "collections": {"documents": collection}},
            "nodes": [
                {"id": "start", "type": "start"},
                {
                    "id": "search",
                    "type": "retrieve",
                    "config": {
                        "collection": "documents",
                        "query": "{{ inputs.question }}",
                        "top_k": top_k,
                    },
                },
                {
                    "id": "write",
                    "type": "llm",
                    "config": {
                        "model": "main",
                        "prompt": [
                            {"role": "system", "content": INSTRUCTIONS},
                            {"role": "user", "content": "{{ inputs.question }}"},
                        ],
                        "context": "{{ search.results }}",
                        "citations": True,
                    },
                    "timeout_s": 120,
                    "retry": {"max_attempts": 3},
                },
                {
                    "id": "done",
                    "type": "end",
                    "config": {"output": {"answer": "{{ write.text }}", "sources": "{{ write.citations }}"}},
                },
            ],
            "edges": [
                {"source": "start", "target": "search"},
                {"source": "search", "target": "write"},
                {"source": "write", "target": "done"},
            ],
        }
    )
