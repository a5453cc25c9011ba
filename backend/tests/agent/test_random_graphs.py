"""Random graphs of every node type: what is accepted comes to its end, however its plan is cut in steps."""

from __future__ import annotations

import copy
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from ag_ui.core import RunErrorEvent, RunFinishedEvent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.agent.core.base import NODE_TYPES, NodeType, NodeTypes, Outputs
from app.agent.core.scope import Scope
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.executable import ExecutableAgent
from app.agent.graph.explaining import explained
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.plan import Step
from app.agent.graph.ports import RunFailed
from app.agent.graph.schema import Bindings
from tests.agent.documents import end, graph, node
from tests.agent.doubles import Bench
from tests.agent.samples import around, config_of
from tests.agent.test_tokens import BITS, graphs

Graph = dict[str, Any]
KINDS = [kind for kind in NODE_TYPES.values() if kind.name not in ("start", "end")]
NEEDED: list[Graph] = [around(kind) for kind in KINDS]
AROUND: Graph = {
    "inputs": {
        "type": "object",
        "properties": {name: part for need in NEEDED for name, part in need["inputs"]["properties"].items()},
    },
    "state": {name: part for need in NEEDED for name, part in need["state"].items()},
    "bindings": {
        what: {name: to for need in NEEDED for name, to in need["bindings"].get(what, {}).items()}
        for what in Bindings.model_fields
    },
}
"""What nodes of all types need together."""
MUTATIONS = ("drop", "rename", "retype", "reroute", "rejoin")


def _acting(kind: NodeType) -> NodeType:
    """The type with a behaviour that asks nobody: it leaves by its first way out."""

    async def act(config: Any, scope: Scope) -> Outputs:
        if config.handles():
            scope.take(config.handles()[0])
        return {}

    return kind if kind.name in ("start", "end") or kind.config.holds_graph() else replace(kind, run=act)


COMPILER = AgentCompiler(NodeTypes(map(_acting, NODE_TYPES.values())))


@st.composite
def mixed(draw: st.DrawFn) -> Graph:
    """Graphs of nodes of any type, each way out of which leads on to a later node."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    parts = [
        node(f"n{i}", kind.name, config_of(kind), join=draw(st.sampled_from(["all", "any"])))
        for i, kind in enumerate(kinds)
    ]
    edges = {"start > n0"}
    for index, (kind, part) in enumerate(zip(kinds, parts, strict=True)):
        later = [*(other["id"] for other in parts[index + 1 :]), "done"]
        ways = kind.config.model_validate(part["config"]).handles()
        ways += ("error",) if kind.fails and draw(st.booleans()) else ()
        edges |= {f"n{index}.{way} > {draw(st.sampled_from(later))}" for way in ways}
        if index + 1 < len(parts) and not any(edge.endswith(f" > n{index + 1}") for edge in edges):
            edges.add(f"n{index}.{ways[0]} > n{index + 1}")
    return graph(*parts, end(), edges=sorted(edges), **AROUND)


@st.composite
def mutated(draw: st.DrawFn) -> Graph:
    """The same with some parts dropped, renamed or led elsewhere."""
    document = copy.deepcopy(draw(mixed()))
    names = [part["id"] for part in document["nodes"]]
    for mutation in draw(st.lists(st.sampled_from(MUTATIONS), max_size=3)):
        part = draw(st.sampled_from(document["nodes"] or [{"id": "none"}]))
        edge = draw(st.sampled_from(document["edges"] or [{}]))
        match mutation:
            case "drop":
                document["edges"] = [other for other in document["edges"] if other is not edge]
            case "rename":
                part["id"] = draw(st.sampled_from([*names, "state", "Wrong"]))
            case "retype":
                part["type"] = draw(st.sampled_from([*NODE_TYPES, "telepathy"]))
            case "reroute":
                edge["target"] = draw(st.sampled_from([*names, "nowhere"]))
            case "rejoin":
                part["join"] = draw(st.sampled_from(["all", "any", "some"]))
    return document


async def comes_to_an_end(document: Graph) -> bool:
    """Whether it is accepted; then it ends, and tells so once."""
    if COMPILER.check(document).errors:
        with pytest.raises(InvalidGraph):
            COMPILER.compile(document)
        return False
    assert len(explained(COMPILER.compile(document)).nodes) == len(document["nodes"])
    bench = Bench(document, compiler=COMPILER)
    with suppress(RunFailed):
        await bench.run()
    ends = [event for event in bench.log.events if isinstance(event, RunFinishedEvent | RunErrorEvent)]
    assert len(ends) == 1
    return True


async def agree(document: Graph, bits: list[bool]) -> None:
    """One step for all that may be in one, and a step for each node: the same is told of the same nodes."""
    fused, apart = Bench(document), Bench(document)
    plan = apart.agent.plan
    apart.agent = ExecutableAgent(replace(plan, steps=tuple(Step((part,)) for part in plan.nodes)))
    inputs = dict(zip(BITS, bits, strict=True))
    outputs = [(await bench.given(inputs)).output for bench in (fused, apart)]
    assert outputs[0] == outputs[1]
    assert _ended(fused) == _ended(apart)


def _ended(bench: Bench) -> list[tuple[str, str | None]]:
    return sorted((value["node_id"], value.get("handle")) for value in bench.log.custom("node.finished"))


def _waiting_for_all(document: Graph) -> Graph:
    for part in document["nodes"]:
        part["join"] = "all"
    return document


BITS_OF_A_RUN = st.lists(st.booleans(), min_size=len(BITS), max_size=len(BITS))
_quietly: dict[str, Any] = {
    "deadline": None,
    "suppress_health_check": [HealthCheck.too_slow],
    "print_blob": True,
}


class TestAcceptedGraphs:
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
    async def test_are_those_of_one_node(self, kind: NodeType) -> None:
        """So that what follows is not about graphs that are all refused."""
        part = node("n0", kind.name, config_of(kind))
        ways = kind.config.model_validate(part["config"]).handles()
        document = graph(part, end(), edges=["start > n0", *(f"n0.{way} > done" for way in ways)], **AROUND)
        assert await comes_to_an_end(document)

    @given(mutated())
    @settings(max_examples=60, **_quietly)
    async def test_come_to_an_end(self, document: Graph) -> None:
        await comes_to_an_end(document)

    @pytest.mark.soak
    @given(mutated())
    @settings(max_examples=3000, **_quietly)
    async def test_come_to_an_end_in_many_shapes(self, document: Graph) -> None:
        await comes_to_an_end(document)


class TestPlans:
    @given(graphs().map(_waiting_for_all), BITS_OF_A_RUN)
    @settings(max_examples=25, **_quietly)
    async def test_agree_fused_and_a_node_at_a_time(self, document: Graph, bits: list[bool]) -> None:
        await agree(document, bits)

    @pytest.mark.soak
    @given(graphs().map(_waiting_for_all), BITS_OF_A_RUN)
    @settings(max_examples=1000, **_quietly)
    async def test_agree_in_many_shapes(self, document: Graph, bits: list[bool]) -> None:
        await agree(document, bits)
