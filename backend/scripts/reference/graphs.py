"""Graphs for the pages of the reference, in few words, and as YAML."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import yaml

Graph = dict[str, Any]
QUESTION: dict[str, Any] = {"question": {"type": "string"}}


def node(name: str, kind: str, config: Mapping[str, Any] | None = None, **policies: Any) -> Graph:
    return {"id": name, "type": kind, **({"config": dict(config)} if config else {}), **policies}


def text(name: str, content: str = "Hello!", **policies: Any) -> Graph:
    return node(name, "template", {"text": content}, **policies)


def llm(name: str, **config: Any) -> Graph:
    """One that is asked the input `question`."""
    prompt = [{"role": "user", "content": "{{ inputs.question }}"}]
    return node(name, "llm", {"model": "main", "prompt": prompt, **config})


def choice(name: str, *handles: str) -> Graph:
    """Branches by what the input `question` is."""
    branches = [{"handle": handle, "when": f'{{{{ inputs.question }}}} == "{handle}"'} for handle in handles]
    return node(name, "condition", {"branches": branches})


def end(name: str = "done", /, **output: Any) -> Graph:
    return node(name, "end", {"output": output} if output else None)


def graph(*nodes: Graph, edges: str, **more: Any) -> Graph:
    """With a start, and the input `question`; edges are `a > b, b.handle > c`."""
    inputs = {"type": "object", "properties": QUESTION, "required": list(QUESTION)}
    return {
        "schema_version": "1",
        "inputs": inputs,
        **more,
        "nodes": [node("start", "start"), *nodes],
        "edges": [_edge(edge) for edge in edges.split(", ")],
    }


def line(*nodes: Graph, **more: Any) -> Graph:
    """start → nodes… → done; where the last one is no end, one is added."""
    if nodes[-1]["type"] != "end":
        nodes = (*nodes, end())
    edges = ", ".join(f"{a} > {b}" for a, b in pairwise(["start", *(part["id"] for part in nodes)]))
    return graph(*nodes, edges=edges, **more)


def _edge(said: str) -> dict[str, str]:
    left, target = said.split(" > ")
    source, _, handle = left.partition(".")
    return {"source": source, **({"handle": handle} if handle else {}), "target": target}


def as_yaml(document: Any) -> str:
    """Small values on one line each, as people write them."""
    return yaml.safe_dump(document, sort_keys=False, default_flow_style=None, width=100, allow_unicode=True)
