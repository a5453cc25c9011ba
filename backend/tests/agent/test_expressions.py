"""Expressions in documents: what parses, what is known of them before the run, what they give."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from app.agent.core.value_types import ValueType, of_value
from app.agent.graph.checks.expressions import hopeless, type_of
from app.agent.graph.expression_rules import FUNCTIONS, MAX_EXPRESSION
from app.agent.graph.expressions import Expression, ExpressionError, parse_expression
from app.agent.graph.plain_expressions import NotPlain, decided
from app.agent.graph.ports import NoExpressions
from app.agent.graph.references import Chain, TemplateError
from app.core.errors import AppError
from app.core.expressions import ExpressionLimits, ExpressionPool, open_expressions

ON_MODULE = pytest.mark.asyncio(loop_scope="module")


class Known:
    """Values by the text of their reference."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def value(self, chain: Chain) -> Any:
        return self.values[str(chain)]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[ExpressionPool]:
    async with open_expressions(ExpressionLimits()) as opened:
        yield opened


class TestParsing:
    @pytest.mark.parametrize(
        ("source", "code"),
        [
            ("{{ a.n }} > 10", "_0 > 10"),
            ("{{a.n}}>{{b.n}}", "_0 > _1"),
            ('{{ a.n ?? "x" }} == "{{{{"', "_0 == '{{'"),
            ("\n  {{ a.n }}\n  in [1,\n 2]\n", "_0 in [1, 2]"),
            ("{{ a.list }}[0].lower()", "_0[0].lower()"),
            ("[x for x in {{ a.list }} if x]", "[x for x in _0 if x]"),
            ("sorted({{ a.list }}, key=lambda row: -row['s'])", "sorted(_0, key=lambda row: -row['s'])"),
            ("'#' in {{ a.text }}", "'#' in _0"),
            ("sum(1 for _ in {{ a.list }})", "sum((1 for _ in _0))"),
            ("f'{ {{ a.n }} :>4}'", "f'{_0:>4}'"),
        ],
    )
    def test_binds_references_as_variables(self, source: str, code: str) -> None:
        assert parse_expression(source).code == code

    @pytest.mark.parametrize(
        ("source", "position", "message"),
        [
            ("{{ a.n }} > ", 11, "invalid syntax"),
            ("1 +* 2", 3, "invalid syntax"),
            ("{{ a.b }} {{ c.d }}", 10, "invalid syntax"),
            ('"{{ a.n }}" == 1', 1, "a reference needs no quotes"),
            ("a > 1", 0, "'a' is not defined: write '{{ a … }}'"),
            ("{{ a.n }} == true", 13, "write 'True'"),
            ("'é' == ö", 7, "'ö' is not defined"),
            ("{{ a.n }}.__class__", 0, "private names such as '__class__'"),
            ("_0 > {{ a.n }}", 0, "a reference needs no quotes"),
            ("_x > 1", 0, "names such as '_x'"),
            ("(lambda _0: _0)({{ a.n }})", 0, "names such as '_0'"),
            ("(n := 1) > 0", 1, "':=' is not part"),
            ("await f()", 0, "'await' is not part"),
            ("(yield)", 1, "'yield' is not part"),
            ("b'x' == 1", 0, "bytes is not a kind of value"),
            ("... == 1", 0, "ellipsis is not a kind of value"),
            ("1j == 1", 0, "complex is not a kind of value"),
            ("{{ a.n }} > 1 # a note", 14, "comments are not part"),
            ("'\\d' == 1", 0, "invalid escape"),
            ("x = 1", 2, "invalid syntax"),
            ("import os", 0, "invalid syntax"),
            ("1; 2", 1, "invalid syntax"),
            ("range(3)", 0, "put list(…) around it"),
            ("(x for x in [1])", 0, "put list(…) around it"),
            ("not " * 900 + "True", 0, "nested too deeply"),
            ("-" * 3900 + "1", 0, "nested too deeply"),
            ("1+" * MAX_EXPRESSION + "1", MAX_EXPRESSION, "at most 4000 characters"),
        ],
    )
    def test_says_what_is_wrong_and_where(self, source: str, position: int, message: str) -> None:
        with pytest.raises(ExpressionError) as error:
            parse_expression(source)
        assert message in error.value.message
        if "invalid syntax" not in message or source.startswith(("1 +*", "{{ a.b")):
            assert error.value.position == position

    def test_a_reference_that_does_not_parse_is_one(self) -> None:
        with pytest.raises(TemplateError) as error:
            parse_expression("1 < {{ a..b }}")
        assert (error.value.position, isinstance(error.value, ExpressionError)) == (9, False)

    @pytest.mark.parametrize("name", ["print", "eval", "exec", "open", "getattr", "vars", "type", "globals"])
    def test_no_other_function_is_known(self, name: str) -> None:
        with pytest.raises(ExpressionError, match="not defined"):
            parse_expression(f"{name}(1)")

    def test_dumps_as_it_was_written(self) -> None:
        adapter: TypeAdapter[Expression] = TypeAdapter(Expression)
        source = "{{ a.n }}  >  1"
        assert adapter.dump_json(adapter.validate_python(source)).decode() == f'"{source}"'
        with pytest.raises(ValidationError, match="at character"):
            adapter.validate_python("1 >")

    @given(st.text(max_size=60) | st.text("({[]})'\"\\#{}.,:=+-*/<>0aif _\n", max_size=60))
    @settings(max_examples=300, deadline=None)
    def test_any_text_parses_or_says_where_it_does_not(self, source: str) -> None:
        try:
            position = len(parse_expression(source).source) - len(source)
        except TemplateError as error:
            position = error.position
        assert 0 <= position <= len(source) + 1


class TestTypes:
    @pytest.mark.parametrize(
        ("code", "kinds"),
        [
            ("_0 > 1", {"boolean"}),
            ("not _1", {"boolean"}),
            ("_0", {"integer"}),
            ("_0 and _1", {"integer", "string"}),
            ("_0 if _1 else None", {"integer", "null"}),
            ("len(_1)", {"integer"}),
            ("f'{ _0 }'", {"string"}),
            ("[1]", {"array"}),
            ("{'a': 1}", {"object"}),
        ],
    )
    def test_follow_from_the_references(self, code: str, kinds: set[str]) -> None:
        expression = parse_expression(code.replace("_0", "{{ a.integer }}").replace("_1", "{{ a.string }}"))
        types = [ValueType(frozenset(chain.references[0].path)) for chain in expression.template.chains]
        names = dict(zip(expression.names, types, strict=True))
        assert type_of(expression.tree, names).kinds == kinds

    @pytest.mark.parametrize(
        ("source", "kinds", "bad"),
        [
            ("{{ a.s }} > 10", "string", True),
            ("1 < {{ a.s }} < 3", "string", True),
            ("{{ a.s }} == 10", "string", False),
            ("{{ a.s }} > 'a'", "string", False),
            ("{{ a.s }} > 1.5", "integer", False),
            ("{{ a.s }} > 0", "null", True),
            ("len({{ a.s }}) > '0'", "string", True),
        ],
    )
    def test_tell_comparisons_that_always_fail(self, source: str, kinds: str, bad: bool) -> None:
        tree = parse_expression(source).tree
        assert bool(list(hopeless(tree, {"_0": ValueType(frozenset({kinds}))}))) is bad


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(-1e6, 1e6)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
LEAVES = st.sampled_from(
    [
        "{{ a.x }}",
        "{{ a.y }}",
        "{{ a.z }}",
        "None",
        "True",
        "0",
        "-1",
        "2.5",
        "''",
        "'a'",
        "[]",
        "[1, 'a', None]",
    ]
)
PLAIN = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            "({} {} {})".format,
            inner,
            st.sampled_from(["==", "!=", "<", "<=", ">", ">=", "in", "not in", "and", "or"]),
            inner,
        ),
        st.builds("({} < {} <= {})".format, inner, inner, inner),
        st.builds("(not {})".format, inner),
        st.builds("({} is None)".format, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("len({})".format, inner),
    ),
    max_leaves=5,
)


@ON_MODULE
class TestPlainOnes:
    """Comparisons are decided without the evaluator: never otherwise than it would."""

    @given(PLAIN, JSON, JSON, JSON)
    @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
    async def test_are_decided_as_the_evaluator_does(
        self, pool: ExpressionPool, source: str, x: Any, y: Any, z: Any
    ) -> None:
        expression = parse_expression(source)
        assume(expression.plain)
        found = {"a.x": x, "a.y": y, "a.z": z}
        values = {
            name: found[str(chain)]
            for name, chain in zip(expression.names, expression.template.chains, strict=True)
        }
        try:
            value = decided(expression.tree, values)
        except NotPlain:
            return
        evaluated = await pool.evaluate(expression.code, values)
        assert (of_value(value), value) == (of_value(evaluated), evaluated)

    @pytest.mark.parametrize(
        "source",
        ["{{ a.n }} > 10", "{{ a.n }} == 'x' or not {{ a.n }}", "{{ a.n }} is not None and len([1]) <= 1"],
    )
    async def test_need_no_evaluator(self, source: str) -> None:
        assert await parse_expression(source).value(Known({"a.n": 11}), NoExpressions()) in (True, False)

    async def test_others_do(self, pool: ExpressionPool) -> None:
        expression = parse_expression("{{ a.n }} + 1 > 10")
        with pytest.raises(AppError, match="no expressions but comparisons"):
            await expression.value(Known({"a.n": 11}), NoExpressions())
        assert await expression.value(Known({"a.n": 11}), pool) is True

    async def test_of_many_large_values_are_not_decided_here(self) -> None:
        assert not parse_expression(" or ".join(["'x' in {{ a.n }}"] * 40)).plain

    @pytest.mark.parametrize(
        "value", ["'; import os", "{{ b.c }}", "1) or (True", '"', "\\", "_0", "__import__"]
    )
    async def test_texts_stay_texts(self, pool: ExpressionPool, value: str) -> None:
        known = Known({"a.n": value})
        assert await parse_expression("{{ a.n }} + ''").value(known, pool) == value
        assert await parse_expression("len({{ a.n }}) > 100").value(known, pool) is False


CALLS = {
    "abs": "abs(-1)", "all": "all([True])", "any": "any([True])", "bool": "bool(1)", "dict": "dict(a=1)",
    "enumerate": "list(enumerate('a'))", "filter": "list(filter(None, [0, 1]))", "float": "float('1')",
    "int": "int('3')", "isinstance": "isinstance(1, int)", "len": "len('a')", "list": "list('a')",
    "map": "list(map(str, [1]))", "max": "max(1, 2)", "min": "min([1])", "range": "list(range(2))",
    "reversed": "list(reversed([1]))", "round": "round(1.6)", "set": "len(set([1]))",
    "sorted": "sorted([2, 1])", "str": "str(1)", "sum": "sum([1])", "tuple": "tuple([1])",
    "zip": "list(zip([1], [2]))",
}  # fmt: skip


@ON_MODULE
class TestFunctions:
    @pytest.mark.parametrize("name", FUNCTIONS)
    async def test_all_exist(self, pool: ExpressionPool, name: str) -> None:
        await parse_expression(CALLS[name]).value(Known({}), pool)
