"""Codes that tell of a document's text, size, keys, values and names."""

from __future__ import annotations

from typing import Any

from app.agent.graph.issues import IssueCode
from app.agent.graph.limits import MAX_DEPTH, MAX_ENDS, MAX_FAN_OUT, MAX_TEXT
from scripts.reference.examples import HANDBOOK, MODELS, Example, Examples
from scripts.reference.graphs import choice, end, graph, line, llm, node, text


def _search(**config: Any) -> dict[str, Any]:
    search = node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}", **config})
    return line(search, **HANDBOOK)


def _wide(count: int) -> dict[str, Any]:
    nodes = [text(f"n{number}") for number in range(count)]
    edges = [f"start > n{number}, n{number} > done" for number in range(count)]
    return graph(*nodes, end(), edges=", ".join(edges))


def _with_ends(count: int) -> dict[str, Any]:
    """Each but the last behind a condition of its own."""
    nodes, edges, last = [], [], "start"
    for number in range(1, count):
        nodes += [choice(f"c{number}", "stop"), end(f"e{number}")]
        edges += [f"{last} > c{number}", f"c{number}.stop > e{number}"]
        last = f"c{number}.else"
    return graph(*nodes, end(), edges=", ".join([*edges, f"{last} > done"]))


def _nested(depth: int) -> dict[str, Any]:
    layout: dict[str, Any] = {}
    for _ in range(depth):
        layout = {"more": layout}
    return line(text("greet"), layout=layout)


def _schema(schema: dict[str, Any]) -> dict[str, Any]:
    return line(llm("ask", output_schema=schema), **MODELS)


_HELLO = line(text("greet"))

OF_DOCUMENTS: Examples = {
    IssueCode.INVALID_SYNTAX: Example(
        "schema_version: '1'\nnodes: [{id: start, type: start}\nedges: []\n",
        "schema_version: '1'\nnodes: [{id: start, type: start}, {id: done, type: end}]\n"
        "edges: [{source: start, target: done}]\n",
        "Text that begins with `{` is read as JSON, other text as YAML 1.2. A key that is there twice in one "
        "object is refused, too: readers disagree about which of the two counts.",
    ),
    IssueCode.NOT_JSON: Example(
        line(text("greet"), layout={"greet": {"x": 2**60}}),
        line(text("greet"), layout={"greet": {"x": 60}}),
        "Integers beyond 2^53 - 1, NaN and infinities, and halves of surrogate pairs change or get lost on "
        "their way through some readers of JSON.",
    ),
    IssueCode.TOO_LARGE: Example(
        line(text("greet", "x" * (MAX_TEXT + 1))),
        _HELLO,
        "Long texts belong into a collection; a large agent can be several.",
        shown=f"A `template` whose `text` has {MAX_TEXT + 1:,} characters.",
    ),
    IssueCode.TOO_DEEP: Example(
        _nested(MAX_DEPTH), _nested(2), shown=f"A `layout` of {MAX_DEPTH} objects inside of each other."
    ),
    IssueCode.TOO_MANY_NODES: Example(
        _with_ends(MAX_ENDS + 1), _with_ends(2), "Branches can share an end.", f"{MAX_ENDS + 1} `end` nodes."
    ),
    IssueCode.TOO_MANY_EDGES: Example(
        _wide(MAX_FAN_OUT + 1), _wide(2), shown=f"A `start` that {MAX_FAN_OUT + 1} edges leave."
    ),
    IssueCode.UNKNOWN_KEY: Example(
        line(text("greet"), layuot={}),
        line(text("greet"), layout={}),
        "Every object of a document is closed, so that a misspelt key is seen and not passed over.",
    ),
    IssueCode.MISSING_KEY: Example(line(node("greet", "template")), _HELLO),
    IssueCode.WRONG_TYPE: Example(_search(top_k="six"), _search(top_k=6)),
    IssueCode.OUT_OF_RANGE: Example(_search(top_k=0), _search(top_k=1)),
    IssueCode.INVALID_VALUE: Example(_search(mode="fuzzy"), _search(mode="keyword")),
    IssueCode.RESERVED_ID: Example(
        line(text("state")),
        line(text("status")),
        "`{{ state.x }}` reads the state, whatever nodes there are.",
    ),
    IssueCode.DUPLICATE_ID: Example(
        graph(text("greet"), text("greet"), end(), edges="start > greet, greet > done"), _HELLO
    ),
    IssueCode.UNKNOWN_NODE_TYPE: Example(
        line(node("greet", "templat", {"text": "Hello!"})),
        _HELLO,
        "[Node types](../nodes/index.md) has them all; `GET /api/v1/agents/node-types` those of a server.",
    ),
    IssueCode.INVALID_SCHEMA: Example(
        _schema({"type": "objekt"}),
        _schema({"type": "object", "properties": {"name": {"type": "string"}}}),
        "A JSON Schema (2020-12) whose `type` is `object`: for `inputs`, `output_schema` and the like.",
    ),
    IssueCode.UNSUPPORTED_SCHEMA: Example(
        _schema({"type": "object", "properties": {"zip": {"type": "string", "pattern": "^[0-9]{5}$"}}}),
        _schema(
            {"type": "object", "properties": {"zip": {"type": "string", "minLength": 5, "maxLength": 5}}}
        ),
        "Regular expressions can take for ever, and a `$ref` in a circle does.",
    ),
}
