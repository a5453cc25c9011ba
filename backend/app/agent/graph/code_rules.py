"""What can be told of a node's code before it runs: that it parses, and what the sandbox's Python lacks."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

MODULES = (
    "base64", "binascii", "bisect", "collections", "copy", "csv", "dataclasses", "datetime", "decimal",
    "functools", "hashlib", "itertools", "json", "math", "random", "re", "time", "tomllib", "typing",
    "unicodedata",
)  # fmt: skip
"""All that code may import; there is nothing in them that reaches out of the sandbox."""
MAX_CODE = 50_000
_LACKING: dict[type[ast.AST], str] = {
    ast.Yield: "'yield'",
    ast.YieldFrom: "'yield from'",
    ast.Delete: "'del'",
    ast.AsyncFunctionDef: "'async'",
    ast.AsyncFor: "'async'",
    ast.AsyncWith: "'async'",
    ast.Await: "'await'",
}


@dataclass(frozen=True, slots=True)
class CodeProblem:
    """`line` counts from 1."""

    line: int
    message: str
    fix: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"


def problems_of(code: str, outputs: Iterable[str]) -> Iterator[CodeProblem]:
    """Whatever keeps `code` from running, and each of `outputs` that it never assigns."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code)
    except SyntaxError as error:
        yield CodeProblem(error.lineno or 1, error.msg, "write Python")
        return
    except (ValueError, RecursionError, MemoryError) as error:
        message = str(error) if isinstance(error, ValueError) else "it is nested too deeply"
        yield CodeProblem(1, message, "write Python")
        return
    nodes = list(_walked(tree))
    for node in nodes:
        yield from _problems(node)
    assigned = {name for node in nodes for name in _assigned(node)}
    for name in outputs:
        if name not in assigned:
            last = code.count("\n") + 1
            yield CodeProblem(last, f"the output {name!r} is never assigned", f"write '{name} = …'")


def _walked(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node, in the order of the text, without recursion."""
    todo = [tree]
    while todo:
        node = todo.pop()
        yield node
        todo.extend(reversed(list(ast.iter_child_nodes(node))))


def _problems(node: ast.AST) -> Iterator[CodeProblem]:
    line = getattr(node, "lineno", 1)
    match node:
        case ast.Import(names=names):
            for name in names:
                yield from _module_problem(name.name, line)
        case ast.ImportFrom(module=module, level=level, names=names):
            yield from _module_problem("." * level + (module or ""), line)
            if any(name.name == "*" for name in names):
                yield CodeProblem(line, "'import *' is not part of code", "name what is imported")
        case ast.ClassDef(bases=[_, *_]) | ast.ClassDef(keywords=[_, *_]):
            yield CodeProblem(line, f"the class {node.name!r} has bases, which code cannot have", "leave out")
        case ast.comprehension(is_async=1):
            yield CodeProblem(line, "'async' is not part of code", "write it without")
    if said := _LACKING.get(type(node)):
        yield CodeProblem(line, f"{said} is not part of code", "write it without")


def _module_problem(module: str, line: int) -> Iterator[CodeProblem]:
    if module.partition(".")[0] not in MODULES:
        message = f"the module {module!r} is out of reach"
        yield CodeProblem(line, message, f"use {', '.join(map(repr, MODULES))}")


def _assigned(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Store()):
            yield name
        case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.alias(name=name, asname=asname):
            yield asname or name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
