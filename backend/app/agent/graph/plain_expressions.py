"""Comparisons of values, decided at once: what most conditions are, without a worker process.

Only cases in which Python leaves nothing open, on values that exist already: nothing here makes a value
larger than those it is given. Every other case, also every one that fails, is left to the evaluator.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

_MOST_NODES = 64
_EXACT = 2**53

_ORDERS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


class NotPlain(Exception):
    """For the evaluator to decide."""


def is_plain(tree: ast.expr) -> bool:
    """Whether `decided` is worth trying."""
    nodes = list(ast.walk(tree))
    return len(nodes) <= _MOST_NODES and all(_is_plain(node) for node in nodes)


def _is_plain(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id="len"), args=[_], keywords=[]):
            return True
        case ast.Name(id=name):
            return name == "len" or name.startswith("_")
        case ast.UnaryOp(op=op):
            return isinstance(op, ast.Not) or isinstance(node.operand, ast.Constant)
    return isinstance(
        node,
        ast.BoolOp
        | ast.Compare
        | ast.IfExp
        | ast.Constant
        | ast.List
        | ast.boolop
        | ast.cmpop
        | ast.unaryop
        | ast.expr_context,
    )


def decided(tree: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value, as Python has it. Raises `NotPlain`."""
    match tree:
        case ast.IfExp(test=test, body=body, orelse=other):
            return decided(body if decided(test, names) else other, names)
        case ast.Call(args=[argument]):
            return _length(decided(argument, names))
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not decided(operand, names)
        case ast.BoolOp():
            return _joined(tree, names)
        case ast.Compare():
            return _compared(tree, names)
    return _given(tree, names)


def _given(tree: ast.expr, names: Mapping[str, Any]) -> Any:
    match tree:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name) if name in names:
            return names[name]
        case ast.List(elts=items):
            return [decided(item, names) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
    raise NotPlain


def _length(value: Any) -> int:
    if isinstance(value, str | list | dict):
        return len(value)
    raise NotPlain


def _joined(tree: ast.BoolOp, names: Mapping[str, Any]) -> Any:
    goes_on = isinstance(tree.op, ast.And)
    value: Any = goes_on
    for operand in tree.values:
        value = decided(operand, names)
        if bool(value) is not goes_on:
            return value
    return value


def _compared(tree: ast.Compare, names: Mapping[str, Any]) -> bool:
    left = decided(tree.left, names)
    for op, comparator in zip(tree.ops, tree.comparators, strict=True):
        right = decided(comparator, names)
        if not _holds(op, left, right):
            return False
        left = right
    return True


def _holds(op: ast.cmpop, left: Any, right: Any) -> bool:
    match op:
        case ast.Eq():
            return _equal(left, right)
        case ast.NotEq():
            return not _equal(left, right)
        case ast.In():
            return _contained(left, right)
        case ast.NotIn():
            return not _contained(left, right)
        case ast.Is() | ast.IsNot() if left is None or right is None:
            return (left is right) is isinstance(op, ast.Is)
    order = _ORDERS.get(type(op))
    if order and ((_is_exact(left) and _is_exact(right)) or (_is_text(left) and _is_text(right))):
        return order(left, right)
    raise NotPlain


def _equal(left: Any, right: Any) -> bool:
    return bool(left == right)


def _contained(value: Any, container: Any) -> bool:
    if isinstance(container, list) or (isinstance(container, dict | str) and isinstance(value, str)):
        return value in container
    raise NotPlain


def _is_exact(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _EXACT


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
