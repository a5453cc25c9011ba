"""Agent documents for tests, in few words, and what the compiler says about them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from app.agent.core.interfaces import Catalog
from app.core.report import Issue
from tests.agent.doubles import COMPILER

CATALOG = Catalog(models={"default-chat": frozenset()}, collections=frozenset({"handbook"}))


def node(
    node_id: str, kind: str, /, config: Mapping[str, Any] | None = None, **policies: Any
) -> dict[str, Any]:
    return {"id": node_id, "type": kind, "config": dict(config or {}), **policies}


def text(node_id: str, content: str, **policies: Any) -> dict[str, Any]:
    return node(node_id, "template", {"text": content}, **policies)


def llm(node_id: str, content: str = "{{ inputs.question }}", /, **config: Any) -> dict[str, Any]:
    """Policies go by keyword too, told apart by name."""
    policies = {key: config.pop(key) for key in ("retry", "timeout_s", "on_error", "join") if key in config}
    prompt = [{"role": "user", "content": content}]
    return node(node_id, "llm", {"model": "main", "prompt": prompt, **config}, **policies)


def end(node_id: str = "done", /, **output: Any) -> dict[str, Any]:
    return node(node_id, "end", {"output": output})


def graph(*nodes: Mapping[str, Any], edges: Sequence[str], **more: Any) -> dict[str, Any]:
    """A document; an edge is `source > target` or `source.handle > target`."""
    return {
        "schema_version": "1",
        "inputs": {
            "type": "object",
            "properties": {"question": {"type": "string"}, "language": {"type": "string"}},
            "required": ["question"],
        },
        "bindings": {"models": {"main": "default-chat"}, "collections": {"kb": "handbook"}},
        "nodes": [{"id": "start", "type": "start"}, *nodes],
        "edges": [_edge(edge) for edge in edges],
        **copy.deepcopy(more),
    }


def _edge(notation: str) -> dict[str, str]:
    left, target = notation.split(" > ")
    source, _, handle = left.partition(".")
    return {"source": source, "target": target, **({"handle": handle} if handle else {})}


ANSWER = {"interface": {"message": "question", "answer": "answer"}}


def full() -> dict[str, Any]:
    """Every node type, a branch on failure, a join."""
    return graph(
        node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}"}),
        llm("write", context="{{ search.results }}", citations=True),
        text("apology", "No model: {{ write.error.message }}"),
        end(answer="{{ write.text ?? apology.text }}", sources="{{ write.citations ?? [] }}"),
        edges=["start > search", "search > write", "write > done", "write.error > apology", "apology > done"],
        **ANSWER,
    )


def issues(document: Any, catalog: Catalog | None = None) -> list[Issue]:
    return COMPILER.check(document, catalog).issues


def codes(document: Any) -> list[str]:
    return [issue.code for issue in issues(document)]


def only(document: Any, catalog: Catalog | None = None) -> Issue:
    found = issues(document, catalog)
    assert len(found) == 1, found
    return found[0]


def line(*middle: dict[str, Any], output: Any = "{{ inputs.question }}", **more: Any) -> dict[str, Any]:
    """start → middle… → done."""
    ids = ["start", *(part["id"] for part in middle), "done"]
    edges = [f"{a} > {b}" for a, b in pairwise(ids)]
    return graph(*middle, end(answer=output), edges=edges, **more)
