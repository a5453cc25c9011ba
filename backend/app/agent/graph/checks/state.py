"""State fields: reducers that fit, initial values that fit, writers that do not race."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from app.agent.core.state import Reducer
from app.agent.core.value_types import ValueType, fits, of_value
from app.agent.graph.draft import DraftNode
from app.agent.graph.flow import Flow
from app.agent.graph.issues import Findings, IssueCode, quoted
from app.agent.graph.schema import StateField

_TAKES = {
    Reducer.APPEND: ("array",),
    Reducer.MERGE: ("object",),
    Reducer.ADD: ("number", "integer"),
}


def check_state(flow: Flow, findings: Findings) -> None:
    for name, field in flow.draft.state.items():
        takes = _TAKES.get(field.reducer)
        if takes and field.type not in takes:
            message = (
                f"reducer {field.reducer.value!r} needs a field of type {takes[0]!r}, not {field.type!r}"
            )
            fix = f"set the type to {' or '.join(map(repr, takes))}, or the reducer to 'replace'"
            findings.add(IssueCode.INVALID_REDUCER, ("state", name, "reducer"), message, fix=fix)
        if field.initial is not None and not fits(type_of(field), of_value(field.initial)):
            message = f"the initial value of {name!r} is {of_value(field.initial)}, not {field.type}"
            fix = f"give a value of type {field.type!r}"
            findings.add(IssueCode.INVALID_INITIAL, ("state", name, "initial"), message, fix=fix)
    _check_writers(flow, findings)


def type_of(field: StateField) -> ValueType:
    return ValueType(frozenset({field.type}))


def taken_by(field: StateField) -> ValueType | None:
    """What can be written to a field; None where everything can."""
    return None if field.reducer == Reducer.APPEND else type_of(field)


def _check_writers(flow: Flow, findings: Findings) -> None:
    writers: dict[str, list[str]] = {}
    for draft_node in flow.draft.nodes:
        for field in sorted(draft_node.node.config.writes()) if draft_node.node else ():
            if field not in flow.draft.state:
                _report_unknown(flow, draft_node, field, findings=findings)
                continue
            _check_constant(flow, draft_node, field, findings=findings)
            if draft_node.id in flow.active:
                writers.setdefault(field, []).append(draft_node.id)
    for field, names in writers.items():
        if flow.draft.state[field].reducer == Reducer.REPLACE:
            _check_race(flow, field, names, findings=findings)


def _report_unknown(flow: Flow, writer: DraftNode, field: str, *, findings: Findings) -> None:
    message = f"node {writer.id!r} writes the state field {field!r}, which is not declared"
    fix = f'{findings.instead(field, flow.draft.state)}; or add "{field}" to the state'
    place = writer.node.config.written().get(field) if writer.node else None
    path = (*writer.path, "config", *place) if place else writer.path
    findings.add(IssueCode.UNKNOWN_STATE, path, message, fix=fix, node_id=writer.id)


def _check_constant(flow: Flow, writer: DraftNode, field: str, *, findings: Findings) -> None:
    """Values without references; the others are held against their field with the references in them."""
    place = writer.node.config.written().get(field) if writer.node else None
    takes = taken_by(flow.draft.state[field])
    if place is None or takes is None:
        return
    value: Any = writer.raw["config"]
    for step in place:
        value = value[step]
    if not isinstance(value, str) and not fits(takes, of_value(value)):
        message = f"{quoted(value)} is {of_value(value)}, but the state field {field!r} takes {takes}"
        path = (*writer.path, "config", *place)
        findings.add(IssueCode.TYPE_MISMATCH, path, message, fix=f"give {takes}", node_id=writer.id)


def _check_race(flow: Flow, field: str, names: list[str], *, findings: Findings) -> None:
    for one, other in combinations(names[:100], 2):
        if _may_overlap(flow, one, other):
            message = f"nodes {one!r} and {other!r} may both replace state field {field!r} at the same time"
            fix = "put one after the other, or give the field a reducer other than 'replace'"
            path = flow.nodes[other].path
            findings.add(IssueCode.PARALLEL_WRITERS, path, message, fix=fix, node_id=other)


def _may_overlap(flow: Flow, one: str, other: str) -> bool:
    branches = flow.branches
    if branches is None:
        return False
    ours, theirs = branches.ways(one), branches.ways(other)
    if ours is None or theirs is None:
        return False
    if all(branches.finished_before(way, one) for way in theirs):
        return False
    if all(branches.finished_before(way, other) for way in ours):
        return False
    return branches.exclusive([way.cube for way in ours], [way.cube for way in theirs]) is False
