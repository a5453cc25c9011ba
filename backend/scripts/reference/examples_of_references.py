"""Codes that tell of references, of bindings and of the interface."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from app.agent.graph.issues import IssueCode
from scripts.reference.examples import HANDBOOK, MODELS, Example, Examples
from scripts.reference.graphs import choice, end, graph, line, llm, node, text


def _said(content: str, **more: Any) -> dict[str, Any]:
    return line(text("say", content), **more)


def _joined(reference: str) -> dict[str, Any]:
    nodes = (choice("size", "short"), text("a"), end(answer=f"{{{{ {reference} }}}}"))
    return graph(*nodes, edges="start > size, size.short > a, size.else > done, a > done")


def _measured(when: str) -> dict[str, Any]:
    size = node("size", "condition", {"branches": [{"handle": "long", "when": when}]})
    return graph(size, end(), edges="start > size, size.long > done, size.else > done")


def _branchy(count: int) -> dict[str, Any]:
    """A line of texts, each of whose failures leads to the same other one."""
    names = [f"n{number}" for number in range(count)]
    edges = [*(f"{a} > {b}" for a, b in pairwise(["start", *names, "done"])), "sorry > done"]
    edges += [f"{name}.error > sorry" for name in names]
    return graph(*map(text, names), text("sorry"), end(), edges=", ".join(edges))


def _called(name: str) -> dict[str, Any]:
    headers = {"Authorization": {"secret": name, "prefix": "Bearer "}}
    return line(node("call", "http", {"url": "https://api.example/me", "headers": headers}))


def _answering(**interface: Any) -> dict[str, Any]:
    return line(llm("ask"), end(answer="{{ ask.text }}"), interface=interface, **MODELS)


def _asked(**config: Any) -> dict[str, Any]:
    return line(node("call", "tool", {"tool": "crm", **config}), bindings={"tools": {"crm": "crm"}})


def _acting(**config: Any) -> dict[str, Any]:
    prompt = [{"role": "user", "content": "{{ inputs.question }}"}]
    act = node("act", "agent", {"model": "main", "prompt": prompt, "tools": ["crm"], **config})
    return line(act, bindings={**MODELS["bindings"], "tools": {"crm": "crm"}})


_WHO = {"name": "{{ inputs.question }}"}
_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}}

OF_REFERENCES: Examples = {
    IssueCode.INVALID_REFERENCE: Example(
        _said("{{ inputs.question"),
        _said("{{ inputs.question }}"),
        "A brace that is meant as such is written twice: `{{{{` gives `{{`.",
    ),
    IssueCode.INVALID_EXPRESSION: Example(
        _measured("len({{ inputs.question }}) >"),
        _measured("len({{ inputs.question }}) > 80"),
        "One expression in Python's notation; [graphs](../../graphs.md#expressions) says what it may do.",
    ),
    IssueCode.UNKNOWN_REFERENCE: Example(_said("{{ inputs.qestion }}"), _said("{{ inputs.question }}")),
    IssueCode.UNKNOWN_OUTPUT: Example(
        line(text("say"), text("again", "{{ say.txt }}")), line(text("say"), text("again", "{{ say.text }}"))
    ),
    IssueCode.NOT_YET_RUN: Example(
        line(text("one", "{{ other.text }}"), text("other")),
        line(text("other"), text("one", "{{ other.text }}")),
        "No path leads from the node that is read to the one that reads.",
    ),
    IssueCode.NEVER_SET: Example(
        line(text("say"), end(why='{{ say.error.message ?? "" }}')),
        graph(
            text("say"), end(why='{{ say.error.message ?? "" }}'),
            edges="start > say, say > done, say.error > done",
        ),
        "A node hands on its `error` by an edge from the handle `error`, or with a default in `on_error`.",
    ),
    IssueCode.MAYBE_UNSET: Example(
        _joined("a.text"),
        _joined('a.text ?? "something longer"'),
        "What one branch makes is unset where another was taken. `??` names what else there is.",
    ),
    IssueCode.TYPE_MISMATCH: Example(
        line(text("say"), llm("ask", context="{{ say.text }}"), **MODELS),
        line(
            node("find", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}"}),
            llm("ask", context="{{ find.results }}"),
            bindings={**MODELS["bindings"], **HANDBOOK["bindings"]},
        ),
        "Reported only where no value could ever be right; what is not known before is settled in the run.",
    ),
    IssueCode.TOO_BRANCHY: Example(
        _branchy(200),
        _branchy(2),
        "The compiler proves of every reference that it is set whenever it is read. The ways that a run can "
        "take multiply with every condition that is still open; beyond a limit it is left to the run, where "
        "an unset reference fails its node with `unset_reference`.",
        shown="200 nodes in a row, of each of which the handle `error` leads to the same node.",
    ),
    IssueCode.UNBOUND: Example(line(llm("ask")), line(llm("ask"), **MODELS)),
    IssueCode.UNKNOWN_BINDING: Example(
        line(text("say"), bindings={"collections": {"kb": "handbok"}}), line(text("say"), **HANDBOOK)
    ),
    IssueCode.UNKNOWN_SECRET: Example(
        _called("crm-tokn"),
        _called("crm-token"),
        "Told to those only who may see the names of secrets.",
    ),
    IssueCode.UNKNOWN_OPERATION: Example(
        _asked(operation="find_custmer", arguments=_WHO),
        _asked(operation="find_customer", arguments=_WHO),
        "Of a tool that offers several; [tools](../../tools.md) says how they are listed.",
    ),
    IssueCode.UNKNOWN_TOOL: Example(
        _acting(approval=["find_custmer"]),
        _acting(approval=["find_customer"]),
        "An `agent` node names tools by their own name, by the one that its model sees, or by their binding.",
    ),
    IssueCode.UNKNOWN_ARGUMENT: Example(
        _asked(operation="find_customer", arguments={**_WHO, "nick": "Ada"}),
        _asked(operation="find_customer", arguments=_WHO),
    ),
    IssueCode.MISSING_ARGUMENT: Example(
        _asked(operation="find_customer"), _asked(operation="find_customer", arguments=_WHO)
    ),
    IssueCode.MISSING_CAPABILITY: Example(
        line(llm("ask", output_schema=_SCHEMA), bindings={"models": {"main": "default-chat"}}),
        line(llm("ask", output_schema=_SCHEMA), **MODELS),
        "[Models](../../models.md) says what a model can do, and how that is declared.",
    ),
    IssueCode.UNKNOWN_INPUT: Example(
        _answering(message="qestion", answer="answer"), _answering(message="question", answer="answer")
    ),
    IssueCode.UNKNOWN_ANSWER: Example(
        _answering(message="question", answer="reply"), _answering(message="question", answer="answer")
    ),
    IssueCode.UNSHOWN_ANSWER: Example(
        _answering(message="question"), _answering(message="question", answer="answer")
    ),
}  # fmt: skip
