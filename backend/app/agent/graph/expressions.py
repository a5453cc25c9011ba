"""The one expression language: Python over `{{ references }}`, which are bound as variables.

    {{ inputs.total }} > 100 and {{ inputs.country ?? "" }} in ["DE", "AT"]
    len({{ search.results }}) == 0
    any(row["score"] > 0.5 for row in {{ search.results }})

A reference stands for the value itself, never for its text, so it takes no quotes. References are evaluated
before the rest: all of them must be set, whichever way `and`, `or` and `if` go.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from app.agent.core.sandbox import Expressions
from app.agent.graph.expression_rules import MAX_EXPRESSION, SyntaxProblem, checked
from app.agent.graph.plain_expressions import NotPlain, decided, is_plain
from app.agent.graph.references import Chain, Lookup, Template, TemplateError, parse, pieces


@dataclass(frozen=True, slots=True)
class Expression:
    """A parsed expression. Compares, dumps and prints as its `source`; `names` stand for its chains."""

    source: str
    template: Template = field(compare=False)
    names: tuple[str, ...] = field(compare=False)
    tree: ast.expr = field(compare=False)
    code: str = field(compare=False)
    plain: bool = field(compare=False)

    async def value(self, lookup: Lookup, evaluator: Expressions) -> Any:
        """Raises what `lookup` and `evaluator` raise."""
        values = {
            name: lookup.value(chain) for name, chain in zip(self.names, self.template.chains, strict=True)
        }
        if self.plain:
            try:
                return decided(self.tree, values)
            except NotPlain:
                pass
        return await evaluator.evaluate(self.code, values)

    def __str__(self) -> str:
        return self.source

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            _validated,
            core_schema.str_schema(strict=True, min_length=1, max_length=MAX_EXPRESSION),
            serialization=core_schema.to_string_ser_schema(),
            metadata={"pydantic_js_updates": {"format": "expression"}},
        )


class ExpressionError(TemplateError):
    """An expression that is not allowed. `position` counts characters from 0 in its text."""


def parse_expression(source: str) -> Expression:
    """Raises `TemplateError` for a reference, `ExpressionError` for anything else, each with its position."""
    text = ""
    names: list[str] = []
    starts: list[tuple[int, int, bool]] = []
    for start, piece in pieces(source):
        starts.append((len(text), start, isinstance(piece, Chain)))
        if isinstance(piece, Chain):
            names.append(f"_{len(names)}")
            text += f" {names[-1]} "
        else:
            text += piece
    try:
        tree = checked(text, tuple(names))
    except SyntaxProblem as problem:
        raise ExpressionError(problem.message, _position(problem.position, starts)) from None
    # What was checked is what is evaluated, whatever else another parser might read in the text.
    return Expression(source, parse(source), tuple(names), tree, ast.unparse(tree), is_plain(tree))


def _position(position: int, starts: list[tuple[int, int, bool]]) -> int:
    """Where a place of the Python text lies in the source; inside a reference, the reference's begin."""
    begun = [entry for entry in starts if entry[0] <= position]
    here, there, is_chain = begun[-1] if begun else (0, 0, False)
    return there if is_chain else there + position - here


def _validated(text: str) -> Expression:
    try:
        return parse_expression(text)
    except TemplateError as error:
        kind = "invalid_expression" if isinstance(error, ExpressionError) else "invalid_reference"
        raise PydanticCustomError(
            kind, "{problem} at character {position}", {"problem": error.message, "position": error.position}
        ) from error
