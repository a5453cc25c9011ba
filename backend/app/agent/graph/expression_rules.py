"""Which Python an expression may be: one expression of plain values, a few functions, no private names."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

MAX_EXPRESSION = 4000
_MAX_DEPTH = 60

_VALUES = ("bool", "dict", "float", "int", "list", "set", "str", "tuple")
_MEASURES = ("abs", "all", "any", "isinstance", "len", "max", "min", "round", "sorted", "sum")
_LAZY_FUNCTIONS = ("enumerate", "filter", "map", "range", "reversed", "zip")
FUNCTIONS = tuple(sorted((*_VALUES, *_MEASURES, *_LAZY_FUNCTIONS)))
"""All that an expression may name besides its references and its own variables."""

_LAZY = (ast.Lambda, ast.GeneratorExp)

_SYNTAX: dict[type[ast.AST], str] = {
    ast.NamedExpr: "':=' is not part of expressions",
    ast.Await: "'await' is not part of expressions",
    ast.Yield: "'yield' is not part of expressions",
    ast.YieldFrom: "'yield' is not part of expressions",
}
_ALLOWED = (
    *(ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Call, ast.keyword, ast.Attribute),
    *(ast.Subscript, ast.Slice, ast.Name, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Starred),
    *(ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.comprehension),
    *(ast.Lambda, ast.arguments, ast.arg, ast.JoinedStr, ast.FormattedValue),
    *(ast.expr_context, ast.boolop, ast.operator, ast.unaryop, ast.cmpop),
)
_CONSTANTS = (bool, int, float, str, type(None))
_TRUE = {"true": "True", "false": "False", "null": "None"}
_COMMENT = re.compile(r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')|\#""")


class SyntaxProblem(ValueError):
    """What is wrong with an expression; `position` counts characters from 0 in the Python text."""

    def __init__(self, message: str, position: int) -> None:
        super().__init__(message)
        self.message = message
        self.position = position


def checked(text: str, bound: tuple[str, ...]) -> ast.expr:
    """The parsed expression, in which each name of `bound` stands exactly once.

    Raises `SyntaxProblem` for whatever is not allowed, before anything is evaluated.
    """
    if len(text) > MAX_EXPRESSION:
        raise SyntaxProblem(f"an expression has at most {MAX_EXPRESSION} characters", MAX_EXPRESSION)
    flat = text.replace("\r", " ").replace("\n", " ")
    tree = _parsed(flat)
    nodes = list(_walked(tree))
    for node in nodes:
        if problem := _problem(node):
            raise SyntaxProblem(problem, _position(flat, node))
    _check_names(nodes, bound, flat)
    if isinstance(tree, _LAZY) or (isinstance(tree, ast.Call) and _is_lazy(tree.func)):
        raise SyntaxProblem("this gives no value yet: put list(…) around it", _position(flat, tree))
    return tree


def _is_lazy(function: ast.expr) -> bool:
    return isinstance(function, ast.Name) and function.id in _LAZY_FUNCTIONS


def _parsed(text: str) -> ast.expr:
    for match in _COMMENT.finditer(text):
        if match[0] == "#":
            raise SyntaxProblem("comments are not part of expressions", match.start())
    indent = len(text) - len(text.lstrip())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # such as for "\d", which is not what it looks like
            return ast.parse(text[indent:], mode="eval").body
    except SyntaxError as error:
        place = indent + error.offset - 1 if error.offset else len(text)
        raise SyntaxProblem(error.msg, place) from None
    except (ValueError, RecursionError, MemoryError) as error:
        reason = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        raise SyntaxProblem(reason, 0) from None


def _walked(tree: ast.expr) -> Iterator[ast.AST]:
    """Every node, without recursion."""
    todo: list[tuple[ast.AST, int]] = [(tree, 0)]
    while todo:
        node, depth = todo.pop()
        if depth > _MAX_DEPTH:
            raise SyntaxProblem("it is nested too deeply", 0)
        yield node
        todo.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


def _problem(node: ast.AST) -> str:
    match node:
        case ast.Constant(value=value) if not isinstance(value, _CONSTANTS):
            return f"{type(value).__name__} is not a kind of value that expressions have"
        case ast.Attribute(attr=name) if name.startswith("_"):
            return f"private names such as {name!r} are out of reach"
        case ast.comprehension(is_async=1):
            return "'async' is not part of expressions"
    if isinstance(node, _ALLOWED):
        return ""
    return _SYNTAX.get(type(node), f"{type(node).__name__} is not part of expressions")


def _check_names(nodes: list[ast.AST], bound: tuple[str, ...], text: str) -> None:
    own = {node.arg for node in nodes if isinstance(node, ast.arg)}
    own |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    for node in nodes:
        name = node.id if isinstance(node, ast.Name) else node.arg if isinstance(node, ast.arg) else None
        if name is None or (name in bound and isinstance(getattr(node, "ctx", None), ast.Load)):
            continue
        if name.startswith("_") and name != "_":
            raise SyntaxProblem(f"names such as {name!r}, with '_' before them, are reserved", 0)
        if name not in own and name not in FUNCTIONS:
            raise SyntaxProblem(_unknown(name), _position(text, node))
    used = [node.id for node in nodes if isinstance(node, ast.Name) and node.id in bound]
    for name in bound:
        if used.count(name) != 1:
            message = "a reference needs no quotes: it stands for the value itself"
            raise SyntaxProblem(message, text.find(name))


def _unknown(name: str) -> str:
    if name in _TRUE:
        return f"write {_TRUE[name]!r}, as in Python, instead of {name!r}"
    return f"{name!r} is not defined: write '{{{{ {name} … }}}}' for a value, or use {', '.join(FUNCTIONS)}"


def _position(text: str, node: ast.AST) -> int:
    """Characters, where Python's parser counts bytes of UTF-8."""
    indent = len(text) - len(text.lstrip())
    column = getattr(node, "col_offset", 0)
    return indent + len(text[indent:].encode()[:column].decode(errors="replace"))
