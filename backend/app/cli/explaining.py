"""`orrery explain`: what a graph would do, as a tree."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.tree import Tree

from app.agent.core.base import SUCCESS, Effect
from app.agent.graph.explaining import ExplainedNode, Explanation

_GOES_ON = ("leaves by error", "goes on with its default")
Bound = list[dict[str, Any]]
"""What the names of `bindings` stand for, as the API answers it."""


def show(console: Console, plan: Explanation, *, title: str, bound: Bound | None = None) -> None:
    console.print(tree_of(plan, title=title, bound=bound or []), soft_wrap=True)


def tree_of(plan: Explanation, *, title: str, bound: Bound) -> Tree:
    tree = Tree(f"[bold]{escape(title)}[/]")
    for binding in bound:
        tree.add(f"{binding['kind']} [bold]{escape(binding['name'])}[/] → {escape(_stands_for(binding))}")
    nodes = {node.id: node for node in plan.nodes}
    for step in plan.steps:
        stored = ", then stored" if step.checkpoint else ""
        branch = tree.add(f"[dim]step {step.number}{stored}[/]")
        for stage in step.stages:
            place = branch.add("[dim]side by side[/]") if len(stage) > 1 else branch
            for name in stage:
                _add(place, nodes[name])
    return tree


def _stands_for(binding: dict[str, Any]) -> str:
    found = binding["stands_for"]
    if found is None:
        return f"{binding['target']}: {binding['problem']}"
    if binding["kind"] == "models":
        return f"{found['provider']}/{found['model']} ({found['why']})"
    return f"{found['name']} ({found['id']})"


def _add(place: Tree, node: ExplainedNode) -> None:
    branch = place.add(f"[bold]{escape(node.id)}[/] {node.type} [dim]{node.effect.value}[/]")
    for line in _facts(node):
        branch.add(escape(line))
    if node.inner:
        branch.add(tree_of(node.inner, title="inside", bound=[]))


def _facts(node: ExplainedNode) -> Iterator[str]:
    joined = ", ".join(_way(token.source, token.handle) for token in node.waits_for)
    said = {
        f"waits for {node.join} of {joined}": len(node.waits_for) > 1,
        f"reads {', '.join(reading.reference for reading in node.reads)}": node.reads,
        f"writes {', '.join(f'state.{name}' for name in node.writes)}": node.writes,
        f"uses {', '.join(f'{bound.kind} {bound.name}' for bound in node.binds)}": node.binds,
        "its text is the answer, shown as it is written": node.live,
        f"is tried {node.policies.retry.max_attempts if node.policies.retry else 1} times in all": (
            node.policies.retry
        ),
        f"on an error it {node.policies.on_error}": node.policies.on_error in _GOES_ON,
        "it may wait for a person or a time, without a process that does": node.suspends,
        "what the nodes inside did is stored, and not done again after a crash": node.inner is not None,
        "what came of it is stored, and not done again after a crash": _is_stored(node),
        "under way at a crash, it is repeated with the same Idempotency-Key": (
            _is_stored(node) and node.effect is Effect.WRITE
        ),
    }
    yield from (fact for fact, holds in said.items() if holds)
    for handle, targets in node.leads_to.items():
        yield f"→ {', '.join(targets)}" if handle == SUCCESS else f"{handle} → {', '.join(targets)}"


def _is_stored(node: ExplainedNode) -> bool:
    return node.after_a_crash == "taken from the journal"


def _way(source: str, handle: str) -> str:
    return source if handle == SUCCESS else f"{source}.{handle}"
