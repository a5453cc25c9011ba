"""Uniform policies against what the node type is."""

from __future__ import annotations

from app.agent.core.base import ERROR, Effect, NodeType
from app.agent.core.value_types import fits, of_value
from app.agent.graph.draft import DraftNode
from app.agent.graph.flow import Flow
from app.agent.graph.issues import Findings, IssueCode
from app.agent.graph.policies import DefaultOutputs, Node

_EFFECTS = list(Effect)


def check_policies(flow: Flow, findings: Findings) -> None:
    catching = {edge.source for edge in flow.edges if edge.handle == ERROR}
    for draft_node in flow.draft.nodes:
        node, kind = draft_node.node, draft_node.type
        if node is None or kind is None:
            continue
        _check_effect(draft_node, node, kind, findings=findings)
        if flow.draft.durability == "exit":
            _check_lasting(draft_node, node, findings=findings)
        _check_cache(draft_node, node, kind, findings=findings)
        if not kind.fails:
            _check_cannot_fail(draft_node, node, findings)
        elif node.on_error is not None and node.id in catching:
            message = f"node {node.id!r} has both on_error and an edge from its handle 'error'"
            findings.add(
                IssueCode.CONFLICTING_ERROR_HANDLING, (*draft_node.path, "on_error"), message,
                fix="remove one of them", node_id=node.id,
            )  # fmt: skip
        if isinstance(node.on_error, DefaultOutputs) and kind.fails:
            _check_default(draft_node, node.on_error, kind, findings=findings)


def _check_effect(draft_node: DraftNode, node: Node, kind: NodeType, *, findings: Findings) -> None:
    if node.effect is None or _EFFECTS.index(node.effect) >= _EFFECTS.index(kind.effect):
        return
    message = (
        f"effect {node.effect.value!r} is less than {kind.effect.value!r}, which {kind.name!r} nodes have"
    )
    fix = f"remove it, or set {kind.effect.value!r} or more"
    findings.add(IssueCode.EFFECT_LOWERED, (*draft_node.path, "effect"), message, fix=fix, node_id=node.id)


def _check_lasting(draft_node: DraftNode, node: Node, *, findings: Findings) -> None:
    if draft_node.suspends:
        message = f"node {node.id!r} waits, which a run that is stored only at its exit cannot"
        fix = "set the graph's durability to 'step', or remove the node"
        findings.add(IssueCode.NO_LASTING_WAIT, draft_node.path, message, fix=fix, node_id=node.id)
    if draft_node.effect is Effect.WRITE:
        message = f"node {node.id!r} has an effect, which a run that begins anew would repeat"
        fix = "set the graph's durability to 'step', or remove the node"
        path = (*draft_node.path, "effect") if node.effect else draft_node.path
        findings.add(IssueCode.LASTING_EFFECT, path, message, fix=fix, node_id=node.id)


def _check_cache(draft_node: DraftNode, node: Node, kind: NodeType, *, findings: Findings) -> None:
    if node.cache is None:
        return
    if not kind.fails:
        reason, fix = f"{kind.name!r} nodes do no work that could be saved", "remove it"
    elif fields := sorted(node.config.writes()):
        reason, fix = f"the node writes the state field {fields[0]!r}, each time it runs", "remove it"
    elif draft_node.suspends:
        reason, fix = "the node waits for a person or a time, each time it runs", "remove it"
    elif draft_node.effect is Effect.WRITE:
        reason = "the node changes something outside (effect 'write'), each time it runs"
        fix = 'remove it; or set "effect": "read" if the node only reads'
    else:
        return
    path = (*draft_node.path, "cache")
    findings.add(IssueCode.NOT_CACHEABLE, path, f"'cache': {reason}", fix=fix, node_id=node.id)


def _check_cannot_fail(draft_node: DraftNode, node: Node, findings: Findings) -> None:
    for key, value in (("retry", node.retry), ("on_error", node.on_error), ("timeout_s", node.timeout_s)):
        if value is not None:
            message = f"{key!r} has no use: {node.type!r} nodes do no work that could fail"
            findings.add(
                IssueCode.CANNOT_FAIL, (*draft_node.path, key), message, fix="remove it", node_id=node.id
            )


def _check_default(
    draft_node: DraftNode, on_error: DefaultOutputs, kind: NodeType, *, findings: Findings
) -> None:
    types = draft_node.types
    for name, value in on_error.default.items():
        path = (*draft_node.path, "on_error", "default", name)
        if name not in types:
            message = f"{kind.name!r} nodes have no output {name!r}"
            if name in kind.types:
                message = f"node {draft_node.id!r} has no output {name!r} as it is configured"
            fix = findings.instead(name, types)
            findings.add(IssueCode.UNKNOWN_OUTPUT, path, message, fix=fix, node_id=draft_node.id)
        elif not fits(types[name], of_value(value)):
            message = f"output {name!r} is {types[name]}, but the default is {of_value(value)}"
            fix = f"give {types[name]}"
            findings.add(IssueCode.TYPE_MISMATCH, path, message, fix=fix, node_id=draft_node.id)
