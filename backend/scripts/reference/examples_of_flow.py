"""Codes that tell of nodes and edges as a graph, of state and of policies."""

from __future__ import annotations

from typing import Any

from app.agent.graph.issues import IssueCode
from scripts.reference.examples import MODELS, Example, Examples
from scripts.reference.graphs import choice, end, graph, line, llm, node, text

_HELLO = line(text("greet"))


def _without(document: dict[str, Any], name: str) -> dict[str, Any]:
    """Without a node and its edges."""
    return document | {
        "nodes": [part for part in document["nodes"] if part["id"] != name],
        "edges": [edge for edge in document["edges"] if name not in (edge["source"], edge["target"])],
    }


def _state(**field: Any) -> dict[str, Any]:
    return line(text("greet"), state={"notes": field})


def _order(**policies: Any) -> dict[str, Any]:
    return node("order", "http", {"method": "POST", "url": "https://api.example/orders"}, **policies)


_NOTES = {"type": "array", "reducer": "append", "initial": []}


def _note(name: str) -> dict[str, Any]:
    return node(name, "set_state", {"values": {"notes": ["{{ inputs.question }}"]}})


def _noted_side_by_side(field: dict[str, Any]) -> dict[str, Any]:
    edges = "start > a, start > b, a > done, b > done"
    return graph(_note("a"), _note("b"), end(), edges=edges, state={"notes": field})


OF_FLOW: Examples = {
    IssueCode.MISSING_START: Example(_without(_HELLO, "start"), _HELLO),
    IssueCode.DUPLICATE_START: Example(
        graph(
            node("again", "start"), text("greet"), end(),
            edges="start > greet, again > greet, greet > done",
        ),
        _HELLO,
        "A graph is begun in one place; its inputs are read anywhere, as `{{ inputs.<name> }}`.",
    ),
    IssueCode.MISSING_END: Example(_without(_HELLO, "done"), _HELLO),
    IssueCode.DANGLING_EDGE: Example(
        graph(text("greet"), end(), edges="start > greet, greet > done, greet > nobody_here"), _HELLO
    ),
    IssueCode.DUPLICATE_EDGE: Example(
        graph(text("greet"), end(), edges="start > greet, greet > done, greet > done"), _HELLO
    ),
    IssueCode.EDGE_INTO_START: Example(
        graph(text("greet"), end(), edges="start > greet, greet > done, greet.error > start"),
        graph(text("greet"), end(), edges="start > greet, greet > done, greet.error > done"),
        "To do something again, use the policy `retry`, or a node type that repeats.",
    ),
    IssueCode.UNKNOWN_HANDLE: Example(
        graph(text("greet"), end(), edges="start > greet, greet > done, greet.failed > done"),
        graph(text("greet"), end(), edges="start > greet, greet > done, greet.error > done"),
        "The handles of every node type are in [its reference](../nodes/index.md).",
    ),
    IssueCode.UNREACHABLE_NODE: Example(
        graph(text("greet"), text("part"), end(), edges="start > greet, greet > done, part > done"),
        graph(text("greet"), text("part"), end(), edges="start > greet, greet > part, part > done"),
    ),
    IssueCode.NO_PATH_TO_END: Example(
        graph(choice("size", "short"), text("a"), end(), edges="start > size, size.short > a, a > done"),
        graph(
            choice("size", "short"), text("a"), end(),
            edges="start > size, size.short > a, size.else > done, a > done",
        ),
        "Whatever way a run takes, it has to come to an `end`, so that it has an output.",
    ),
    IssueCode.CYCLE: Example(
        graph(text("a"), text("b"), end(), edges="start > a, a > b, b > done, b.error > a"),
        graph(text("a"), text("b", retry={"max_attempts": 3}), end(), edges="start > a, a > b, b > done"),
        "Edges lead forward, so that it is known before a run what it can cost.",
    ),
    IssueCode.MULTIPLE_ENDS: Example(
        graph(text("a"), end("one"), end("other"), edges="start > a, a > one, a > other"),
        graph(
            choice("a", "short"), end("one"), end("other"),
            edges="start > a, a.short > one, a.else > other",
        ),
        "A run has one output. Several ends are fine where they exclude one another.",
    ),
    IssueCode.INVALID_REDUCER: Example(
        _state(type="string", reducer="append"), _state(type="array", reducer="append", initial=[])
    ),
    IssueCode.INVALID_INITIAL: Example(
        _state(type="array", initial="none yet"), _state(type="array", initial=[])
    ),
    IssueCode.UNKNOWN_STATE: Example(
        line(_note("note"), state={"nots": _NOTES}),
        line(_note("note"), state={"notes": _NOTES}),
    ),
    IssueCode.PARALLEL_WRITERS: Example(
        _noted_side_by_side({"type": "array"}),
        _noted_side_by_side(_NOTES),
        "Which of the two would be last is chance. With a reducer that adds, both are kept.",
    ),
    IssueCode.EFFECT_LOWERED: Example(
        line(llm("ask") | {"effect": "pure"}, **MODELS),
        line(llm("ask") | {"effect": "read"}, **MODELS),
        "What a node does to the world decides what is stored before and after it. More may be claimed, "
        "not less.",
    ),
    IssueCode.CONFLICTING_ERROR_HANDLING: Example(
        graph(
            text("greet", on_error={"default": {"text": ""}}), end(),
            edges="start > greet, greet > done, greet.error > done",
        ),
        line(text("greet", on_error={"default": {"text": ""}})),
    ),
    IssueCode.LASTING_EFFECT: Example(
        line(_order(), durability="exit"),
        line(_order(), durability="step"),
        "With `exit`, a run whose process dies does again what was not stored yet: an order would be placed "
        "twice.",
    ),
    IssueCode.NO_LASTING_WAIT: Example(
        line(node("pause", "wait", {"for_s": 60}), durability="exit"),
        line(node("pause", "wait", {"for_s": 60}), durability="step"),
        "A run that waits is left by its process; another can go on with it only from what was stored.",
    ),
    IssueCode.CANNOT_FAIL: Example(
        line(text("greet"), end() | {"retry": {"max_attempts": 3}}),
        line(text("greet", retry={"max_attempts": 3})),
    ),
    IssueCode.NOT_CACHEABLE: Example(
        line(_order(cache={"ttl_s": 60})),
        line(_order(cache={"ttl_s": 60}, effect="read")),
        "A `POST` that only asks can say so by `effect`.",
    ),
}  # fmt: skip
