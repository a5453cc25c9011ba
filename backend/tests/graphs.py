"""Agent documents for tests; imports nothing of ours, for processes that only talk to a platform."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

HELLO_GRAPH: dict[str, Any] = {
    "schema_version": "1",
    "inputs": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    "interface": {"message": "name", "answer": "text"},
    "nodes": [
        {"id": "start", "type": "start"},
        {"id": "greet", "type": "template", "config": {"text": "Hello, {{ inputs.name }}!"}},
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ greet.text }}"}}},
    ],
    "edges": [{"source": "start", "target": "greet"}, {"source": "greet", "target": "done"}],
}


def greeting_graph(text: str) -> dict[str, Any]:
    """HELLO_GRAPH with another greeting."""
    start, greet, done = HELLO_GRAPH["nodes"]
    return HELLO_GRAPH | {"nodes": [start, greet | {"config": {"text": text}}, done]}


def asking_graph(model: str, *, collection: str | None = None) -> dict[str, Any]:
    """Asks the logical model `model`, after searching in `collection` where one is given."""
    ask: dict[str, Any] = {
        "model": "main",
        "prompt": [{"role": "user", "content": "{{ inputs.name }}"}],
    }
    nodes: list[dict[str, Any]] = [
        {"id": "start", "type": "start"},
        {"id": "ask", "type": "llm", "config": ask},
        {"id": "done", "type": "end", "config": {"output": {"text": "{{ ask.text }}"}}},
    ]
    bindings: dict[str, Any] = {"models": {"main": model}}
    path = ["start", "ask", "done"]
    if collection is not None:
        search = {"collection": "kb", "query": "{{ inputs.name }}", "top_k": 3}
        nodes.append({"id": "search", "type": "retrieve", "config": search})
        ask |= {"context": "{{ search.results }}"}
        bindings["collections"] = {"kb": collection}
        path.insert(1, "search")
    return HELLO_GRAPH | {
        "bindings": bindings,
        "nodes": nodes,
        "edges": [{"source": a, "target": b} for a, b in pairwise(path)],
    }
