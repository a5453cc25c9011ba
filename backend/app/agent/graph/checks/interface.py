"""`inputs` as a schema, and `interface` as names of inputs and of an output."""

from __future__ import annotations

import json
from collections.abc import Iterator

from app.agent.core.interfaces import Capability
from app.agent.core.value_types import ANY, ValueType, fits, of_schema
from app.agent.graph.config_fields import uses_in
from app.agent.graph.draft import Draft
from app.agent.graph.flow import Flow
from app.agent.graph.issues import Findings, IssueCode
from app.agent.graph.json_schema import check_schema
from app.agent.graph.references import Chain

_OF_AN_OUTPUT = len(("output", "name"))
_TAKES = {"message": "string", "history": "array", "files": "array"}


def check_inputs(draft: Draft, findings: Findings) -> ValueType:
    """The type of `inputs`; of a schema that is no good, only the names are read."""
    if draft.inputs is None:
        return ANY
    if not check_schema(draft.inputs, ("inputs",), findings):
        properties = draft.inputs.get("properties")
        names = properties if isinstance(properties, dict) else None
        return ValueType(frozenset({"object"}), dict.fromkeys(names, ANY)) if names else ANY
    inputs = of_schema(draft.inputs)
    if inputs.fields is None and not draft.inputs.get("additionalProperties"):
        return ValueType(frozenset({"object"}), {})
    return inputs


def check_interface(flow: Flow, inputs: ValueType, findings: Findings) -> None:
    interface = flow.draft.interface
    if interface is None or interface.answer is None:
        _check_shown(flow, findings)
    if interface is None:
        return
    for key, kind in _TAKES.items():
        name = getattr(interface, key)
        if name is None or inputs.fields is None:
            continue
        if name not in inputs.fields:
            message = f"interface.{key} names the input {name!r}, which is not declared"
            fix = findings.instead(name, inputs.fields)
            findings.add(IssueCode.UNKNOWN_INPUT, ("interface", key), message, fix=fix)
        elif not fits(ValueType(frozenset({kind})), inputs.fields[name]):
            message = f"interface.{key} takes {kind}, but the input {name!r} is {inputs.fields[name]}"
            fix = f"declare the input as {kind}, or name another"
            findings.add(IssueCode.TYPE_MISMATCH, ("interface", key), message, fix=fix)
    if interface.answer is not None:
        _check_answer(flow, interface.answer, findings)


def _check_answer(flow: Flow, answer: str, findings: Findings) -> None:
    for name in flow.ends:
        config = flow.nodes[name].raw.get("config", {})
        output = config.get("output", {}) if isinstance(config, dict) else None
        if not isinstance(output, dict) or answer in output:
            continue
        message = f"interface.answer names the output {answer!r}, which end {name!r} does not produce"
        fix = findings.instead(answer, output)
        findings.add(IssueCode.UNKNOWN_ANSWER, ("interface", "answer"), message, fix=fix, node_id=name)


def _check_shown(flow: Flow, findings: Findings) -> None:
    """Warns where text that could be shown while it is written is an output of a graph that shows none."""
    raw = flow.draft.document.get("interface")
    if isinstance(raw, dict) and "answer" in raw:
        return  # null says that nothing is to be shown; of what is wrong was told
    for name in flow.ends:
        end = flow.nodes[name]
        for use in uses_in(end.node.config) if end.node else ():
            writers = [node for chain in use.template.chains for node in _writers(flow, chain)]
            if not writers or len(use.path) != _OF_AN_OUTPUT:
                continue
            output = str(use.path[-1])
            message = (
                f"output {output!r} holds the text of node {writers[0]!r}, but nothing is shown as it is "
                "written: interface.answer names no output"
            )
            findings.add(
                IssueCode.UNSHOWN_ANSWER, (*end.path, "config", *use.path), message,
                fix=f'name it in interface.answer: "interface": {{"answer": {json.dumps(output)}}}',
                node_id=name,
            )  # fmt: skip
            return


def _writers(flow: Flow, chain: Chain) -> Iterator[str]:
    """The nodes whose text, meant for people, the chain may give."""
    for reference in chain.references:
        node = flow.nodes.get(reference.source)
        if node is None or node.node is None or node.type is None or not node.type.streams:
            continue
        if reference.path == (node.type.streams,) and Capability.STRUCTURED_OUTPUT not in node.requires:
            yield node.id
