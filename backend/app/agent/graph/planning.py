"""Checked flow → plan: order, steps, and which nodes speak for the agent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from app.agent.core.base import ERROR, Effect
from app.agent.graph.branches import Cube
from app.agent.graph.config_fields import uses_in
from app.agent.graph.flow import Flow
from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.nodes.end import EndConfig
from app.agent.graph.plan import Plan, PlannedNode, Step
from app.agent.graph.policies import DefaultOutputs, Node
from app.agent.graph.references import Reference, Template
from app.agent.graph.schema import Bindings


def plan_of(flow: Flow) -> Plan:
    """`flow` comes from a document without errors."""
    draft = flow.draft
    interface = draft.interface
    answer = interface.answer if interface else None
    live = _live(flow, answer) if answer else frozenset()
    planned: dict[str, PlannedNode] = {}
    for name in flow.order:
        timed = any(planned[arrival.source].timed for arrival in flow.arrivals[name])
        planned[name] = _planned(flow, name, live=name in live, timed=timed)
    return Plan(
        steps=_steps(flow, planned),
        ends=tuple(flow.ends),
        inputs=draft.inputs or {},
        answer=answer,
        state=dict(draft.state),
        bindings=Bindings.model_validate(draft.bindings.model_dump()),
        durability=draft.durability,
    )


def _planned(flow: Flow, name: str, *, live: bool, timed: bool) -> PlannedNode:
    kind, node = flow.nodes[name].type, _node(flow, name)
    if kind is None:
        raise ValueError(f"node {name!r} has no type")
    references = tuple(_references(use.template for use in uses_in(node.config)))
    of_policies = _references([node.cache.key] if node.cache and node.cache.key else [])
    return PlannedNode(
        id=name,
        type=kind,
        config=node.config,
        arrivals=tuple(flow.arrivals[name]),
        handles=flow.handles[name],
        references=references,
        reads=frozenset(reference.source for reference in (*references, *of_policies)),
        timeout_s=node.timeout_s,
        retry=node.retry,
        default=node.on_error if isinstance(node.on_error, DefaultOutputs) else None,
        effect=flow.nodes[name].effect,
        cache=node.cache,
        join=node.join,
        live=live,
        behind_a_race=timed,
        written=flow.nodes[name].raw.get("config") or {},
        inner=plan_of(flow.inner[name]) if name in flow.inner else None,
    )


def _references(templates: Iterable[Template]) -> Iterator[Reference]:
    return (reference for one in templates for chain in one.chains for reference in chain.references)


def _node(flow: Flow, name: str) -> Node:
    node = flow.nodes[name].node
    if node is None:
        raise ValueError(f"node {name!r} has not been checked")
    return node


def _steps(flow: Flow, planned: dict[str, PlannedNode]) -> tuple[Step, ...]:
    """As few as there can be with a checkpoint between effectful parts.

    (What became of effectful nodes is in the journal; the others are worked out anew from it.)
    """
    steps: list[list[PlannedNode]] = []
    for part in _parts(flow, planned):
        if steps and not (_effectful(steps[-1]) and _effectful(part)):
            steps[-1] += part
        else:
            steps.append(part)
    return tuple(Step(tuple(nodes)) for nodes in steps)


def _parts(flow: Flow, planned: dict[str, PlannedNode]) -> Iterator[list[PlannedNode]]:
    """Nodes beside which nothing runs, one by one; between them, together, those that run side by side.

    Where the first of several wins, the others may still run beside all that follows.
    """
    beside: list[PlannedNode] = []
    pending = 0  # edges from nodes before to nodes after; for those that lead nowhere one that never arrives
    for name in flow.order:
        node = planned[name]
        arriving = 1 if node.first_wins else len(node.sources)
        if arriving < pending:
            beside.append(node)
        else:
            if beside:
                yield beside
                beside = []
            yield [node]
        pending += max(1, len(flow.successors[name])) - arriving
    if beside:
        yield beside


def _effectful(nodes: list[PlannedNode]) -> bool:
    return any(node.effect is not Effect.PURE for node in nodes)


def _live(flow: Flow, answer: str) -> frozenset[str]:
    """The streaming nodes whose text, once written, is the answer in every run.

    Others are not shown before the end, lest text be shown that is not the answer.
    """
    candidates = {
        reference.source
        for end in flow.ends
        for reference in _alternatives(flow, end, answer)
        if _streams(flow, reference)
    }
    return frozenset(name for name in candidates if all(_answers(flow, name, e, answer) for e in flow.ends))


def _answers(flow: Flow, name: str, end: str, answer: str) -> bool:
    """Whether the answer of `end` is the text of `name` in each run that has both."""
    written, ways = flow.successful(name), flow.branches.ways(end) if flow.branches else None
    if flow.branches is None or written is None or ways is None:
        return False
    if flow.branches.exclusive([way.cube for way in ways], written):
        return True
    for reference in _alternatives(flow, end, answer):
        if reference.source == name and _streams(flow, reference):
            return True
        earlier = _set_when(flow, reference)
        if earlier is None or not flow.branches.exclusive(earlier, written):
            return False
    return False


def _alternatives(flow: Flow, end: str, answer: str) -> tuple[Reference, ...]:
    """What the answer of `end` is chosen from; nothing where it is put together from parts."""
    config = _node(flow, end).config
    output = config.output.get(answer) if isinstance(config, EndConfig) else None
    template = output.parsed if isinstance(output, JsonTemplate) else None
    chain = template.chain if isinstance(template, Template) else None
    return chain.references if chain else ()


def _streams(flow: Flow, reference: Reference) -> bool:
    node = flow.nodes.get(reference.source)
    return bool(node and node.type and node.type.streams and reference.path == (node.type.streams,))


def _set_when(flow: Flow, reference: Reference) -> list[Cube] | None:
    if reference.source not in flow.nodes:
        return None
    if reference.path[:1] == (ERROR,):
        return flow.failed(reference.source)
    return flow.successful(reference.source)
