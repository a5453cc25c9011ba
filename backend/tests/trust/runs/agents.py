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


STEPS = ("reserve", "pay", "notify", "ship", "settle")
"""What is done for every order, besides one of `large` and `small`."""


def order_graph(url: str) -> dict[str, Any]:
    """Ten nodes: calls with effects at `url`, two of them side by side, and one of two chosen by a condition.

    Every body names the receipt of the call before, so that the end tells what became of each.
    """
    nodes = [
        {"id": "start", "type": "start"},
        _effect(url, "reserve", "{{ inputs.amount }}"),
        _effect(url, "pay", "{{ reserve.body.receipt }}"),
        _effect(url, "notify", "{{ reserve.body.receipt }}"),
        {
            "id": "check",
            "type": "condition",
            "config": {"branches": [{"handle": "large", "when": "{{ inputs.amount }} > 100"}]},
        },
        _effect(url, "large", "{{ pay.body.receipt }}"),
        _effect(url, "small", "{{ pay.body.receipt }}"),
        _effect(url, "ship", "{{ large.body.receipt ?? small.body.receipt }}"),
        _effect(url, "settle", "{{ ship.body.receipt }} {{ notify.body.receipt }}"),
        {"id": "done", "type": "end", "config": {"output": {"receipt": "{{ settle.body.receipt }}"}}},
    ]
    edges = [
        *pairwise(("start", "reserve", "pay", "check")),
        ("reserve", "notify"),
        ("large", "ship"),
        ("small", "ship"),
        ("notify", "ship"),
        *pairwise(("ship", "settle", "done")),
    ]
    schema = {"order": {"type": "string"}, "amount": {"type": "integer"}}
    return {
        "schema_version": "1",
        "inputs": {"type": "object", "properties": schema, "required": ["order", "amount"]},
        "interface": {"message": "order", "answer": "receipt"},
        "nodes": nodes,
        "edges": [
            *({"source": source, "target": target} for source, target in edges),
            {"source": "check", "handle": "large", "target": "large"},
            {"source": "check", "handle": "else", "target": "small"},
        ],
    }


def _effect(url: str, name: str, before: str) -> dict[str, Any]:
    config = {
        "method": "POST",
        "url": f"{url}/{{{{ inputs.order }}}}/{name}",
        "body": {"json": {"before": before}},
    }
    return {"id": name, "type": "http", "config": config}
