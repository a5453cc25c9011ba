"""What kind of value an expression gives, and comparisons that can only fail, as far as types tell."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

from app.agent.core.value_types import ANY, ValueType, of_value, union

_BOOLEAN = ValueType(frozenset({"boolean"}))
_NUMBERS = frozenset({"integer", "number", "boolean"})
_ORDERS = (ast.Lt, ast.LtE, ast.Gt, ast.GtE)
_GIVES = {
    **dict.fromkeys(("all", "any", "bool", "isinstance"), "boolean"),
    **dict.fromkeys(("len", "int"), "integer"),
    **dict.fromkeys(("list", "sorted", "tuple"), "array"),
    **{"float": "number", "str": "string", "dict": "object"},
}
_SHAPES: dict[type[ast.expr], str] = {
    **dict.fromkeys((ast.List, ast.Tuple, ast.ListComp), "array"),
    **dict.fromkeys((ast.Dict, ast.DictComp), "object"),
    ast.JoinedStr: "string",
}


def type_of(tree: ast.expr, names: Mapping[str, ValueType]) -> ValueType:
    """The type of the expression's value; `names` are those of its references."""
    match tree:
        case ast.Name(id=name):
            return names.get(name, ANY)
        case ast.Constant(value=value):
            return of_value(value)
        case ast.Compare() | ast.UnaryOp(op=ast.Not()):
            return _BOOLEAN
        case ast.BoolOp(values=values):
            return union(type_of(value, names) for value in values)
        case ast.IfExp(body=body, orelse=other):
            return union((type_of(body, names), type_of(other, names)))
        case ast.Call(func=ast.Name(id=name)) if name in _GIVES:
            return ValueType(frozenset({_GIVES[name]}))
    kind = _SHAPES.get(type(tree))
    return ValueType(frozenset({kind})) if kind else ANY


def hopeless(tree: ast.expr, names: Mapping[str, ValueType]) -> Iterator[tuple[ValueType, ValueType]]:
    """The two sides of each comparison by size whose sides can never be compared."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Compare):
            continue
        sides = [type_of(side, names) for side in (node.left, *node.comparators)]
        for op, left, right in zip(node.ops, sides, sides[1:], strict=False):
            if isinstance(op, _ORDERS) and not _comparable(left, right):
                yield left, right


def _comparable(left: ValueType, right: ValueType) -> bool:
    """Numbers with numbers, texts with texts, lists with lists."""
    return any(left.kinds & kinds and right.kinds & kinds for kinds in (_NUMBERS, {"string"}, {"array"}))
