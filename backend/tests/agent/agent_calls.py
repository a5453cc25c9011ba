"""Scripts of models that call tools, and documents of agents that have some."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from app.agent.core.interfaces import Finished, TextDelta, ToolCall, ToolCallDelta, Usage
from tests.agent.documents import node
from tests.agent.doubles import Script

ANSWER = {"interface": {"message": "question", "answer": "answer"}}


def wants(
    *calls: tuple[str, Any], text: str = "", tokens: tuple[int, int] = (10, 5), pieces: bool = True
) -> Script:
    """Asks for tools; arguments are objects, or texts as the model would write them."""
    events: list[Any] = [TextDelta(text)] if text else []
    made = [ToolCall(f"call_{index}", name, _written(given)) for index, (name, given) in enumerate(calls)]
    for call in made if pieces else ():
        half = len(call.arguments) // 2
        events += [
            ToolCallDelta(call.id, call.name, part) for part in (call.arguments[:half], call.arguments[half:])
        ]
    return [*events, *made, Finished("tool_calls", Usage(*tokens))]


def _written(given: Any) -> str:
    return given if isinstance(given, str) else json.dumps(given)


def document(*around: dict[str, Any], bindings: Any = None, **config: Any) -> dict[str, Any]:
    """start → act, an agent → done."""
    policies = {key: config.pop(key) for key in ("retry", "timeout_s", "effect") if key in config}
    prompt = [{"role": "system", "content": "Help."}, {"role": "user", "content": "{{ inputs.question }}"}]
    act = node("act", "agent", {"model": "main", "prompt": prompt, **config}, **policies)
    outputs = ["text", "tool_calls", "messages", "iterations", "stopped_by", "usage", "citations"]
    outputs += ["output"] if "output_schema" in config else []
    output = {name: f"{{{{ act.{name} }}}}" for name in outputs} | {"answer": "{{ act.text }}"}
    ids: Sequence[str] = ["start", *(part["id"] for part in around), "act", "done"]
    return {
        "schema_version": "1",
        "inputs": {"type": "object", "properties": {"question": {"type": "string", "default": ""}}},
        "bindings": {"models": {"main": "default-chat"}, **(bindings or {})},
        "nodes": [
            {"id": "start", "type": "start"},
            *around,
            act,
            {"id": "done", "type": "end", "config": {"output": output}},
        ],
        "edges": [{"source": a, "target": b} for a, b in pairwise(ids)],
        **ANSWER,
    }
