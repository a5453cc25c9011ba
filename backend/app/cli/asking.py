"""Which input of an agent takes the question of `orrery ask`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.cli.client import Client, segment
from app.core.constants import API_PREFIX
from app.core.errors import BadRequest

_USUAL = "question"


def message_input(client: Client, agent: str) -> str:
    """The one that its live version names as `interface.message`, else `question`.

    Raises `BadRequest` where it has neither: says what its inputs are, and how to run it.
    """
    found = client.get(f"/agents/{segment(agent)}")
    if found["live_version"] is None:
        return _USUAL  # the server says what is missing
    graph = client.get(f"/agents/{segment(agent)}/versions/{found['live_version']}")["graph"]
    if message := (graph.get("interface") or {}).get("message"):
        return str(message)
    inputs = graph.get("inputs") or {}
    if _USUAL in inputs.get("properties", {}):
        return _USUAL
    slug = found["slug"]
    raise BadRequest(
        f"The agent {slug!r} names no `interface.message`, so no input of it takes a question. "
        f"Its inputs: {_told(inputs)}. Name one of them there and publish it, or run it with all of them: "
        f"POST {API_PREFIX}/agents/{slug}/runs with {_example(inputs)}."
    )


def _told(inputs: Mapping[str, Any]) -> str:
    required = inputs.get("required", ())
    told = [
        f"{name} ({_type(schema)}{'' if name in required else ', optional'})"
        for name, schema in inputs.get("properties", {}).items()
    ]
    return ", ".join(told) or "none"


def _type(schema: Any) -> str:
    kind = schema.get("type", "anything") if isinstance(schema, Mapping) else "anything"
    return kind if isinstance(kind, str) else " or ".join(kind)


def _example(inputs: Mapping[str, Any]) -> str:
    names = inputs.get("required") or list(inputs.get("properties", {}))
    return json.dumps({"input": dict.fromkeys(names, "…")}, ensure_ascii=False)
