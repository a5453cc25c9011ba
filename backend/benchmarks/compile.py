"""From an agent's document to a graph that can run: check, plan and compile."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

from langgraph.graph import START, StateGraph
from typing_extensions import TypedDict

from app.agent.graph.compiler import AgentCompiler
from app.agent.langgraph_adapter import Drive
from app.core.garbage import kept
from benchmarks.processes import own_cpu_s
from benchmarks.registry import Report, Row, Scale, benchmark
from benchmarks.rounds import Cost, take_turns

_AIM = 3.0
_CPU = "CPU"


@benchmark("compile", floor="LangGraph's own build and compile of a chain of as many nodes")
async def compile_graph(scale: Scale) -> Report:
    compiler = AgentCompiler()
    rows = []
    for nodes in scale.pick((10,), *[(10, 100, 1000, 2000)] * 2):
        document = chain(nodes)
        repeats = scale.pick(1, max(2, 200 // nodes), max(5, 2000 // nodes))
        sides = {
            "ours": partial(_cost, partial(_compiled, compiler, document), repeats, nodes),
            "floor": partial(_cost, partial(bare_chain, nodes), repeats, nodes),
        }
        rounds = await take_turns(sides, scale.pick(1, 3, 5))
        ours, floor = rounds.least("ours")[_CPU], rounds.least("floor")[_CPU]
        spread = rounds.spread("ours", "floor", _CPU)
        rows.append(Row(f"{nodes} nodes", "CPU ms per node", ours, floor, _AIM, spread=spread))
    return Report(rows)


def _compiled(compiler: AgentCompiler, document: dict[str, Any]) -> Drive:
    return Drive(compiler.compile(document))


def chain(nodes: int) -> dict[str, Any]:
    """`start`, model calls that each take the text before, `end`: nothing that could be fused."""
    calls = [f"call_{number}" for number in range(nodes - 2)]
    texts = ["{{ inputs.question }}", *(f"{{{{ {call}.text }}}}" for call in calls)]
    ids = ["start", *calls, "done"]
    return {
        "schema_version": "1",
        "inputs": {
            "type": "object",
            "properties": {"question": {"type": "string"}},
            "required": ["question"],
        },
        "interface": {"message": "question", "answer": "answer"},
        "bindings": {"models": {"main": "default-chat"}},
        "nodes": [
            {"id": "start", "type": "start"},
            *(
                {
                    "id": call,
                    "type": "llm",
                    "config": {"model": "main", "prompt": [{"role": "user", "content": text}]},
                }
                for call, text in zip(calls, texts, strict=False)
            ),
            {"id": "done", "type": "end", "config": {"output": {"answer": texts[-1]}}},
        ],
        "edges": [{"source": a, "target": b} for a, b in pairwise(ids)],
    }


class _State(TypedDict):
    text: str


async def _pass_on(state: _State) -> _State:
    return state


def bare_chain(nodes: int) -> Any:
    graph = StateGraph(_State)
    last = START
    for number in range(nodes):
        graph.add_node(f"n{number}", _pass_on)
        graph.add_edge(last, f"n{number}")
        last = f"n{number}"
    return graph.compile()


async def _cost(make: Callable[[], Any], repeats: int, nodes: int) -> Cost:
    """CPU milliseconds per node of the quickest of `repeats` runs, after one that does not count.

    The collector looks at what is made, and not at modules, as in the processes that serve (`core/garbage`).
    """
    with kept():
        make()
    times = []
    for _ in range(repeats):
        gc.collect()
        began = own_cpu_s()
        make()
        times.append(own_cpu_s() - began)
    return {_CPU: min(times) * 1e3 / nodes}
