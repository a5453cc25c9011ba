"""Tokens and joins of whole graphs, against an interpreter that knows nothing but their rules."""

from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.core.interfaces import StepRecord
from tests.agent.documents import end, graph, node, text
from tests.agent.doubles import COMPILER, Bench

Graph = dict[str, Any]
BITS = ("a", "b", "c")
EXPRESSIONS = [
    "{{ inputs.a }}",
    "not {{ inputs.b }}",
    "{{ inputs.a }} and {{ inputs.c }}",
    "{{ inputs.b }} == True",
]


def interpreted(document: Graph, inputs: dict[str, bool]) -> dict[str, str]:
    """Who runs, and the handle each leaves by: one token per edge, taken or skipped, in any order."""
    tokens: dict[tuple[str, str, str], bool] = {}
    left_by: dict[str, str] = {}
    todo = list(document["nodes"])
    while todo:
        part = next(p for p in todo if all(_key(e) in tokens for e in _into(document, p["id"])))
        todo.remove(part)
        incoming = _into(document, part["id"])
        runs = not incoming or any(tokens[_key(edge)] for edge in incoming)
        handle = _handle(part, inputs) if runs else ""
        if runs:
            left_by[part["id"]] = handle
        for edge in document["edges"]:
            if edge["source"] == part["id"]:
                tokens[_key(edge)] = runs and edge.get("handle", "out") == handle
    return left_by


def _key(edge: dict[str, str]) -> tuple[str, str, str]:
    return edge["source"], edge.get("handle", "out"), edge["target"]


def _into(document: Graph, name: str) -> list[dict[str, str]]:
    return [edge for edge in document["edges"] if edge["target"] == name]


def _handle(part: dict[str, Any], inputs: dict[str, bool]) -> str:
    if part["type"] != "condition":
        return "out"
    a, b, c = (inputs[bit] for bit in BITS)
    holds = dict(zip(EXPRESSIONS, (a, not b, a and c, b), strict=True))
    return next((way["handle"] for way in part["config"]["branches"] if holds[way["when"]]), "else")


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Acyclic graphs of conditions, texts and naps, joined in both ways, in which all leads to the end."""
    names = [f"n{i}" for i in range(draw(st.integers(1, 7)))]
    nodes: list[dict[str, Any]] = []
    for name in names:
        join = draw(st.sampled_from(["all", "any"]))
        match draw(st.sampled_from(["condition", "condition", "text", "nap"])):
            case "condition":
                chosen = draw(st.lists(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3, unique=True))
                branches = [{"handle": f"h{i}", "when": when} for i, when in enumerate(chosen)]
                nodes.append(node(name, "condition", {"branches": branches}, join=join))
            case "text":
                nodes.append(text(name, name, join=join))
            case "nap":
                nodes.append(node(name, "nap", {}, join=join))
    edges = {"start > n0"}
    for index, part in enumerate(nodes):
        later = st.sampled_from([*names[index + 1 :], "done"])
        for way in _ways(part):
            edges |= {f"{part['id']}.{way} > {to}" for to in draw(st.lists(later, min_size=1, max_size=2))}
        if not any(edge.endswith(f" > {part['id']}") for edge in edges):
            earlier = draw(st.sampled_from(nodes[:index]))
            edges.add(f"{earlier['id']}.{draw(st.sampled_from(_ways(earlier)))} > {part['id']}")
    ran = {name: f'{{{{ {name}.{field} ?? "" }}}}' for name, field in map(_output, nodes)}
    document = graph(*nodes, end(**ran), edges=sorted(edges))
    properties = {bit: {"type": "boolean"} for bit in BITS}
    document["inputs"] = {"type": "object", "properties": properties, "required": list(BITS)}
    return document


def _ways(part: dict[str, Any]) -> list[str]:
    branches = part["config"].get("branches")
    return [*(branch["handle"] for branch in branches), "else"] if branches else ["out"]


def _output(part: dict[str, Any]) -> tuple[str, str]:
    return part["id"], "branch" if part["type"] == "condition" else "text"


async def agree(document: Graph) -> None:
    assert COMPILER.check(document).errors == []
    for values in product((False, True), repeat=len(BITS)):
        inputs = dict(zip(BITS, values, strict=True))
        bench = Bench(document)
        result = await bench.given(inputs)
        expected = interpreted(document, inputs)
        started = Counter(value["node_id"] for value in bench.log.custom("node.started"))
        assert started == Counter(dict.fromkeys(expected, 1))
        ended = {value["node_id"]: value.get("handle", "out") for value in bench.log.custom("node.finished")}
        assert ended == expected
        _waited(document, bench)
        if all(part.get("join", "all") == "all" for part in document["nodes"]):
            assert {name for name, value in result.output.items() if value} == set(expected) - {
                "start",
                "done",
            }


def _waited(document: Graph, bench: Bench) -> None:
    """A node that joins on all began after everything before it had finished or was skipped."""
    story = [
        (entry.value["node_id"], entry.name)
        for _, entry in bench.log.entries
        if not isinstance(entry, StepRecord) and getattr(entry, "name", "").startswith("node.")
    ]
    finished: set[str] = set()
    ran = {name for name, _ in story}
    joins = {part["id"]: part.get("join", "all") for part in document["nodes"]}
    for name, event in story:
        if event == "node.finished":
            finished.add(name)
        elif joins[name] == "all":
            assert {edge["source"] for edge in _into(document, name)} & ran <= finished


class TestGraphs:
    @given(graphs())
    @settings(deadline=None, max_examples=12, suppress_health_check=[HealthCheck.too_slow])
    async def test_run_whom_the_rules_say_once_and_in_order(self, document: Graph) -> None:
        await agree(document)

    @pytest.mark.soak
    @given(graphs())
    @settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
    async def test_run_so_in_many_shapes(self, document: Graph) -> None:
        await agree(document)
