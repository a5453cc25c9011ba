"""Checked flow → plan: order, fused chains of pure nodes, and which nodes speak for the agent."""

from __future__ import annotations

from app.agent.core.base import ERROR, SUCCESS, Effect
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
    planned = {name: _planned(flow, name, live=name in live) for name in flow.order}
    return Plan(
        steps=_steps(flow, planned),
        ends=tuple(flow.ends),
        inputs=draft.inputs or {},
        answer=answer,
        state=dict(draft.state),
        bindings=Bindings.model_validate(draft.bindings.model_dump()),
        durability=draft.durability,
    )


def _planned(flow: Flow, name: str, *, live: bool) -> PlannedNode:
    kind, node = flow.nodes[name].type, _node(flow, name)
    if kind is None:
        raise ValueError(f"node {name!r} has no type")
    return PlannedNode(
        id=name,
        type=kind,
        config=node.config,
        arrivals=tuple(flow.arrivals[name]),
        handles=flow.handles[name],
        references=tuple(
            reference
            for use in uses_in(node.config)
            for chain in use.template.chains
            for reference in chain.references
        ),
        timeout_s=node.timeout_s,
        retry=node.retry,
        default=node.on_error if isinstance(node.on_error, DefaultOutputs) else None,
        effect=node.effect or kind.effect_of(node.config),
        cache=node.cache,
        join=node.join,
        live=live,
    )


def _node(flow: Flow, name: str) -> Node:
    node = flow.nodes[name].node
    if node is None:
        raise ValueError(f"node {name!r} has not been checked")
    return node


def _steps(flow: Flow, planned: dict[str, PlannedNode]) -> tuple[Step, ...]:
    """A pure node joins the step of its only source if that is pure and leads nowhere else."""
    chains: dict[str, list[PlannedNode]] = {}
    step_of: dict[str, str] = {}
    for name in flow.order:
        arrivals = planned[name].arrivals
        source = arrivals[0].source if len(arrivals) == 1 else None
        if source and _fusible(flow, planned[name]) and _leads_only_on(flow, planned[source]):
            step_of[name] = step_of[source]
            chains[step_of[source]].append(planned[name])
        else:
            step_of[name] = name
            chains[name] = [planned[name]]
    return _shortened(
        tuple(
            Step(
                tuple(nodes),
                tuple(dict.fromkeys(step_of[arrival.source] for arrival in nodes[0].arrivals)),
            )
            for nodes in chains.values()
        )
    )


def _shortened(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    """Where nothing branches, pure steps go with the effectful one beside them: there is no order to keep.

    (What became of the effectful node is in the journal, so the others are worked out anew from it.)
    """
    before: tuple[tuple[str, ...], ...] = ((), *((step.id,) for step in steps[:-1]))
    if any(step.sources != sources for step, sources in zip(steps, before, strict=True)):
        return steps
    shortened: list[Step] = []
    for step in steps:
        if shortened and _goes_with(shortened[-1], step):
            shortened[-1] = Step(shortened[-1].nodes + step.nodes, shortened[-1].sources)
        else:
            shortened.append(Step(step.nodes, tuple(last.id for last in shortened[-1:])))
    return tuple(shortened)


def _goes_with(step: Step, following: Step) -> bool:
    """Whether both hold one effectful node at most; who reads the state must see what was written before."""
    effectful = [node for node in step.nodes + following.nodes if node.effect is not Effect.PURE]
    return len(effectful) <= 1 and not any(node.config.writes() for node in step.nodes)


def _fusible(flow: Flow, node: PlannedNode) -> bool:
    return node.effect == Effect.PURE and _node(flow, node.id).plain


def _leads_only_on(flow: Flow, node: PlannedNode) -> bool:
    return _fusible(flow, node) and node.handles == (SUCCESS,) and len(flow.successors[node.id]) == 1


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
