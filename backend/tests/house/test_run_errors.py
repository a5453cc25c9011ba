"""Every code that nodes and runs fail with is registered, and every registered one is raised somewhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.agent.core.run_errors import RunErrorCode
from app.agent.graph.policies import RetryPolicy
from app.core import errors

APP = Path(errors.__file__).parents[1]
RAISING = [
    *(APP / "agent").rglob("*.py"),
    *(APP / "services" / "llm").glob("*.py"),
    *(APP / "services" / "runs").glob("*.py"),
    *(APP / "services" / name for name in ("http_service.py", "model_resolver.py", "secret_service.py")),
    *(APP / "core" / name for name in ("expressions.py", "errors.py", "sandbox/code.py")),
]
"""Where what can fail a node is made."""
_TABLES = {"_CODES", "_BY_STATUS", "_BY_NAME"}
_BY_PLACE = {"ModelError": 0, "failed_by": 0, "_told": 1}
_ELSEWHERE = {
    "unusable_operation": "of OpenAPI documents, when a tool is registered",
    "invalid_schema": "of what others describe, when a tool is registered",
    "diff_does_not_fit": "of drafts, which are not run",
    "record_ends": "of a replay, which ends as the recorded run did",
    "log_dropped": "of reading a log, or making a run of one",
    "run_failed": "has the code of what failed",
    "fenced_off": "the run goes on elsewhere",
    "rate_limited": "of our own API; a node is told rate_limit",
    "unavailable": "a node is told server_error",
}
"""Codes in those files that no node and no run ends with."""


def literals(node: ast.expr) -> Iterator[str]:
    """The texts that an expression gives, whichever way it goes."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.IfExp(body=one, orelse=other):
            yield from literals(one)
            yield from literals(other)


def codes_in(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from _given(node)
        elif isinstance(node, ast.Assign):
            yield from _assigned(node.targets[0], node.value)
        elif isinstance(node, ast.AnnAssign) and node.value:
            yield from _assigned(node.target, node.value)


def _given(call: ast.Call) -> Iterator[str]:
    by_place = _BY_PLACE.get(ast.unparse(call.func))
    given = [keyword.value for keyword in call.keywords if keyword.arg == "code"]
    for value in [*given, *(call.args[by_place : by_place + 1] if by_place is not None else ())]:
        yield from literals(value)


def _assigned(target: ast.expr, value: ast.expr) -> Iterator[str]:
    match target, value:
        case ast.Name(id="code"), _:
            yield from literals(value)
        case ast.Tuple(elts=names), ast.Tuple(elts=values):
            for name, part in zip(names, values, strict=True):
                yield from _assigned(name, part)
        case ast.Name(id=name), ast.Dict(values=values) if name in _TABLES:
            for part in values:
                yield from literals(part)


def raised() -> dict[str, set[str]]:
    """Codes with the files that name them; those of `core.errors` only where a node can meet them."""
    found: dict[str, set[str]] = {}
    for file in RAISING:
        for code in codes_in(ast.parse(file.read_text())):
            found.setdefault(code, set()).add(str(file.relative_to(APP)))
    return found


def test_every_raised_code_is_registered() -> None:
    known = set(RunErrorCode) | set(_ELSEWHERE)
    unknown = {code: files for code, files in raised().items() if code not in known}
    assert {code: files for code, files in unknown.items() if files != {"core/errors.py"}} == {}


def test_every_registered_code_is_raised() -> None:
    assert set(RunErrorCode) - raised().keys() == set()


@pytest.mark.parametrize("code", RunErrorCode)
def test_retried_are_those_of_the_policy(code: RunErrorCode) -> None:
    assert code.retried is (code.value in RetryPolicy().on)


def test_the_scan_sees_every_way_to_give_a_code() -> None:
    planted = """
class A(AppError):
    code, title = "of_a_class", "Title"
class B(AppError):
    code = "of_another"
_BY_STATUS = {401: "of_a_table"}
code = "one" if x else "other"
raise NodeError("message", code="by_keyword")
raise ModelError("by_place", "message")
"""
    expected = {"of_a_class", "of_another", "of_a_table", "one", "other", "by_keyword", "by_place"}
    assert set(codes_in(ast.parse(planted))) == expected
