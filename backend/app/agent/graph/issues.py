"""Every finding a graph can have: one code each, collected and put in document order."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from enum import StrEnum
from typing import Any

from app.core.errors import FieldError, Invalid
from app.core.report import Issue, Report, Severity

Path = tuple[str | int, ...]
"""A place in a document: keys and indexes from its root."""


class IssueCode(StrEnum):
    """Stable for programs; `description` is what the documentation says about it."""

    description: str
    severity: Severity

    def __new__(cls, code: str, description: str, severity: Severity = Severity.ERROR) -> IssueCode:
        member = str.__new__(cls, code)
        member._value_ = code
        member.description = description
        member.severity = severity
        return member

    INVALID_SYNTAX = "invalid_syntax", "The text is neither JSON nor YAML, or repeats a key."
    NOT_JSON = "not_json", "A value that JSON cannot carry exactly (I-JSON, RFC 7493), such as NaN."
    TOO_LARGE = "too_large", "The document holds more text or more values than allowed."
    TOO_DEEP = "too_deep", "Values are nested deeper than allowed."
    TOO_MANY_NODES = "too_many_nodes", "The graph has more nodes, or more ends, than allowed."
    TOO_MANY_EDGES = "too_many_edges", "The graph has more edges, or one node has more, than allowed."
    TOO_BRANCHY = (
        "too_branchy",
        "There are too many branches to prove which values are set; it shows in the run.",
        Severity.WARNING,
    )
    UNKNOWN_KEY = "unknown_key", "A key that its object does not have."
    MISSING_KEY = "missing_key", "A required key is absent."
    WRONG_TYPE = "wrong_type", "A value of another JSON type than its key takes."
    OUT_OF_RANGE = "out_of_range", "A number, text or list beyond its limits."
    INVALID_VALUE = "invalid_value", "A value that is not among those allowed."
    RESERVED_ID = "reserved_id", "A node or state field has a name that references read otherwise."
    DUPLICATE_ID = "duplicate_id", "Two nodes share an id."
    UNKNOWN_NODE_TYPE = "unknown_node_type", "No node type has this name."
    MISSING_START = "missing_start", "The graph has no `start` node."
    DUPLICATE_START = "duplicate_start", "The graph has more than one `start` node."
    MISSING_END = "missing_end", "The graph has no `end` node."
    DANGLING_EDGE = "dangling_edge", "An edge begins or ends at a node that does not exist."
    DUPLICATE_EDGE = "duplicate_edge", "The same edge is there twice."
    EDGE_INTO_START = "edge_into_start", "An edge leads into the `start` node."
    UNKNOWN_HANDLE = "unknown_handle", "The edge's source has no such way out."
    UNREACHABLE_NODE = "unreachable_node", "No path leads from `start` to the node."
    NO_PATH_TO_END = "no_path_to_end", "A way out of the node never reaches an `end`."
    CYCLE = "cycle", "Edges lead in a circle."
    MULTIPLE_ENDS = "multiple_ends", "Two `end` nodes can both be reached in one run."
    INVALID_REFERENCE = "invalid_reference", "A `{{ … }}` that does not parse."
    INVALID_EXPRESSION = "invalid_expression", "An expression that does not parse, or does what none may."
    UNKNOWN_REFERENCE = (
        "unknown_reference",
        "A reference to an input, state field or node that does not exist.",
    )
    UNKNOWN_OUTPUT = "unknown_output", "A reference to an output, or a field, that its source does not have."
    NOT_YET_RUN = "not_yet_run", "A reference to a node that cannot have run before this one."
    NEVER_SET = "never_set", "A reference to an `error` that its node can never hand on."
    MAYBE_UNSET = "maybe_unset", "A reference to a value that is unset on some way to the node."
    TYPE_MISMATCH = "type_mismatch", "The value can never be of the type that its place takes."
    UNBOUND = "unbound", "The name is not in the document's `bindings`."
    UNKNOWN_BINDING = "unknown_binding", "The binding's target does not exist in this project."
    UNKNOWN_SECRET = (
        "unknown_secret",
        "The project has no such secret yet; without it, the node fails.",
        Severity.WARNING,
    )
    UNKNOWN_OPERATION = "unknown_operation", "The bound tool offers no such operation, or several."
    UNKNOWN_TOOL = "unknown_tool", "A name that none of the node's tools has."
    UNKNOWN_ARGUMENT = "unknown_argument", "An argument that the tool does not take."
    MISSING_ARGUMENT = "missing_argument", "An argument that the tool needs is absent."
    MISSING_CAPABILITY = "missing_capability", "The bound model cannot do what the node needs."
    INVALID_SCHEMA = "invalid_schema", "Not a valid JSON Schema (2020-12) of an object."
    UNSUPPORTED_SCHEMA = "unsupported_schema", "A JSON Schema keyword whose cost or reach cannot be bounded."
    UNKNOWN_INPUT = "unknown_input", "`interface` names an input that is not declared."
    UNKNOWN_ANSWER = "unknown_answer", "`interface.answer` names an output that an `end` does not produce."
    UNSHOWN_ANSWER = (
        "unshown_answer",
        "A model's text is an output, but no `interface.answer` names it: nothing is shown as it is written.",
        Severity.WARNING,
    )
    INVALID_REDUCER = "invalid_reducer", "The reducer does not fit the state field's type."
    INVALID_INITIAL = "invalid_initial", "The initial value is not of the state field's type."
    UNKNOWN_STATE = "unknown_state", "A node writes a state field that is not declared."
    PARALLEL_WRITERS = "parallel_writers", "Two nodes may replace the same state field at the same time."
    EFFECT_LOWERED = "effect_lowered", "`effect` claims less than the node type does."
    CONFLICTING_ERROR_HANDLING = (
        "conflicting_error_handling",
        "`on_error` and an `error` edge are both there.",
    )
    NO_LASTING_WAIT = (
        "no_lasting_wait",
        "A node that may wait for a person or a time, in a graph whose runs are stored only at their exit.",
    )
    LASTING_EFFECT = (
        "lasting_effect",
        "An effect that must not be repeated in a graph whose runs are stored only at their exit.",
    )
    CANNOT_FAIL = "cannot_fail", "A policy for failures on a node that has none."
    NOT_CACHEABLE = "not_cacheable", "`cache` on a node whose work must be done each time."


class InvalidGraph(Invalid):
    """A document with errors; `report` has them all, `errors` the same as fields, each with its remedy."""

    code = "invalid_graph"

    def __init__(self, report: Report) -> None:
        count = len(report.errors)
        told = [
            (issue, f"{issue.message} ({issue.fix})" if issue.fix else issue.message)
            for issue in report.errors
        ]
        super().__init__(
            f"the agent graph has {count} error{'s' if count != 1 else ''}: {told[0][1]}",
            errors=[FieldError(issue.pointer, issue.code, message) for issue, message in told],
        )
        self.report = report


class Budget:
    """Comparisons left: looking for near names is quadratic in documents where every name is wrong."""

    def __init__(self, comparisons: int = 20_000) -> None:
        self.left = comparisons


def nearest(wrong: object, names: Sequence[str], budget: Budget) -> str | None:
    """The name that was probably meant."""
    budget.left -= len(names)
    if not isinstance(wrong, str) or len(wrong) > 200 or budget.left < 0:
        return None
    return next(iter(get_close_matches(wrong, names, n=1)), None)


class Findings:
    """Collects issues; hands them out in document order."""

    def __init__(self) -> None:
        self._found: list[tuple[Path, Issue]] = []
        self._budget = Budget()

    def add(
        self,
        code: IssueCode,
        path: Path,
        message: str,
        *,
        fix: str = "",
        node_id: str | None = None,
    ) -> None:
        issue = Issue(
            code=code.value,
            severity=code.severity,
            node_id=node_id,
            pointer=pointer(path),
            message=message,
            fix=fix,
        )
        if (path, issue) not in self._found[-8:]:
            self._found.append((path, issue))

    def instead(self, wrong: object, choices: Iterable[str]) -> str:
        """A remedy for a name that is not among `choices`: the nearest one, and the rest."""
        names = list(choices)
        if not names:
            return "there is none to choose from"
        near = nearest(wrong, names, self._budget)
        meant = f"did you mean {near!r}? " if near else ""
        return f"{meant}valid: {listing(names)}"

    def within(self, path: Path, node_id: str) -> Findings:
        """For what is found in the graph inside of a node: places and nodes are told as seen from here."""
        return _Within(self, path, node_id)

    def report(self, document: object) -> Report:
        order = _Order(document)
        found = sorted(self._found, key=lambda entry: order.place(entry[0]))
        return Report(issues=[issue for _, issue in found])


class _Within(Findings):
    """Passes on what it is given."""

    def __init__(self, outer: Findings, path: Path, node_id: str) -> None:
        self._outer = outer
        self._path = path
        self._node_id = node_id

    def add(
        self, code: IssueCode, path: Path, message: str, *, fix: str = "", node_id: str | None = None
    ) -> None:
        name = f"{self._node_id}/{node_id}" if node_id else self._node_id
        self._outer.add(code, (*self._path, *path), message, fix=fix, node_id=name)

    def instead(self, wrong: object, choices: Iterable[str]) -> str:
        return self._outer.instead(wrong, choices)

    def report(self, document: object) -> Report:
        return self._outer.report(document)


def pointer(path: Path) -> str:
    """RFC 6901."""
    return "".join("/" + str(token).replace("~", "~0").replace("/", "~1") for token in path)


class _Order:
    """Sorts paths as their targets stand in a document; a container comes before its content."""

    def __init__(self, document: object) -> None:
        self._document = document
        self._indexes: dict[int, dict[object, int]] = {}

    def place(self, path: Path) -> list[int]:
        here = self._document
        places: list[int] = []
        for token in path:
            if isinstance(here, dict):
                index = self._indexes.setdefault(id(here), {}) or self._indexed(here)
                places.append(index.get(token, len(index)))
                here = here.get(token)
            elif isinstance(here, list) and isinstance(token, int) and 0 <= token < len(here):
                places.append(token)
                here = here[token]
            else:
                return places
        return places

    def _indexed(self, value: dict[object, object]) -> dict[object, int]:
        index = {key: place for place, key in enumerate(value)}
        self._indexes[id(value)] = index
        return index


def quoted(value: Any) -> str:
    """A value as JSON has it, but strings in single quotes; cut to a readable length."""
    if isinstance(value, str):
        text = repr(value) if len(value) < 80 else repr(value[:77] + "…")
    else:
        text = json.dumps(value, ensure_ascii=False, skipkeys=True, default=repr)
    return text if len(text) <= 80 else text[:79] + "…"


def listing(names: Sequence[str], *, limit: int = 12) -> str:
    """The first names, quoted, and how many there are in all."""
    shown = ", ".join(map(repr, names[:limit]))
    return f"{shown}, … ({len(names)} in all)" if len(names) > limit else shown
