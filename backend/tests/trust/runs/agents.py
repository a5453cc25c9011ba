"""Agents whose runs are cut, killed and counted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httpx2

from tests.graphs import HELLO_GRAPH


def published(client: httpx2.Client, slug: str, graph: dict[str, Any]) -> str:
    """Makes and publishes an agent; one that is there already stays as it is."""
    made = client.post("/agents", json={"name": slug, "slug": slug, "graph": graph})
    if made.status_code != 409:
        made.raise_for_status()
        client.post(f"/agents/{slug}/publish").raise_for_status()
    return slug


def talking_graph(count: int) -> dict[str, Any]:
    """Asks the project's default model `count` times in a row."""
    ids = ["start", *(f"ask_{number}" for number in range(count)), "done"]
    ask = {"model": "main", "prompt": [{"role": "user", "content": "{{ inputs.name }}"}]}
    end = {"output": {"text": f"{{{{ {ids[-2]}.text }}}}"}}
    return HELLO_GRAPH | {
        "bindings": {"models": {"main": "default-chat"}},
        "nodes": [
            {"id": "start", "type": "start"},
            *({"id": name, "type": "llm", "config": ask} for name in ids[1:-1]),
            {"id": "done", "type": "end", "config": end},
        ],
        "edges": [{"source": a, "target": b} for a, b in pairwise(ids)],
    }
