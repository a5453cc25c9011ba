"""`transform`: values worked out by expressions, and what is known of them before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.agent.graph.ports import RunFailed
from app.core.expressions import ExpressionLimits, ExpressionPool, open_expressions
from tests.agent.documents import codes, issues, line, node, only
from tests.agent.doubles import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[ExpressionPool]:
    async with open_expressions(ExpressionLimits(timeout_s=0.1, grace_s=0.1)) as opened:
        yield opened


def document(output: Any, **values: Any) -> dict[str, Any]:
    found = line(node("t", "transform", {"values": values}), output=output)
    found["inputs"] = {
        "type": "object",
        "properties": {"question": {"type": "string"}, "x": {}},
        "required": ["x"],
    }
    return found


async def answer(pool: ExpressionPool, found: dict[str, Any], x: Any) -> Any:
    return (await Bench(found, expressions=pool).given({"x": x})).output["answer"]


class TestRun:
    async def test_gives_each_value_by_its_name(self, pool: ExpressionPool) -> None:
        found = document(
            {"sum": "{{ t.sum }}", "big": "{{ t.big }}", "names": "{{ t.names }}"},
            sum="sum(row['n'] for row in {{ inputs.x }})",
            big="len({{ inputs.x }}) > 1",
            names="{row['name']: row['n'] for row in {{ inputs.x }}}",
        )
        rows = [{"name": "a", "n": 1}, {"name": "b", "n": 2}]
        assert await answer(pool, found, rows) == {"sum": 3, "big": True, "names": {"a": 1, "b": 2}}

    async def test_a_reference_alone_keeps_its_value(self, pool: ExpressionPool) -> None:
        assert await answer(pool, document("{{ t.same }}", same="{{ inputs.x }}"), {"deep": [None]}) == {
            "deep": [None]
        }

    async def test_text_of_a_user_is_never_code(self, pool: ExpressionPool) -> None:
        found = document("{{ t.v }}", v="{{ inputs.x }} + '!'")
        assert await answer(pool, found, "' + str(1) + '") == "' + str(1) + '!"

    @pytest.mark.parametrize(
        ("expression", "code"),
        [
            ("{{ inputs.x }} + 1", "expression_failed"),
            ("9**9**7", "expression_limit"),
            ("set([1])", "expression_failed"),
            ("{{ session.variables.absent }}", "unset_reference"),
            ("[1] * 150_000", "too_large"),
        ],
    )
    async def test_fails_by_the_expression_that_fails(
        self, pool: ExpressionPool, expression: str, code: str
    ) -> None:
        with pytest.raises(RunFailed) as failure:
            await answer(pool, document("x", first="1 == 1", wrong=expression), "text")
        assert failure.value.code == code

    async def test_counts_as_pure(self) -> None:
        assert Bench(document("{{ t.a }}", a="1")).agent.plan.nodes[1].effect == "pure"


class TestChecks:
    async def test_know_the_outputs_by_their_names(self) -> None:
        issue = only(document("{{ t.totl }}", total="1 + 1"))
        assert (issue.code, "did you mean 'total'?" in issue.fix) == ("unknown_output", True)

    async def test_know_the_types_of_outputs(self) -> None:
        issue = only(document("{{ t.count.unit }}", count="len({{ inputs.x }})"))
        assert (issue.code, "integer has no field 'unit'" in issue.message) == ("unknown_output", True)

    async def test_hold_a_default_against_them(self) -> None:
        found = document("{{ t.count }}", count="len({{ inputs.x }})")
        found["nodes"][1]["on_error"] = {"default": {"count": "none"}}
        assert codes(found) == ["type_mismatch"]
        found["nodes"][1]["on_error"] = {"default": {"count": 0}}
        assert issues(found) == []

    @pytest.mark.parametrize(
        ("expression", "code"),
        [
            ("{{ inputs.x }} +", "invalid_expression"),
            ("total + 1", "invalid_expression"),
            ("{{ inputs.y }} + 1", "unknown_reference"),
            ("{{ inputs.question }} + ''", "maybe_unset"),
            ("'a' < 1", "type_mismatch"),
        ],
    )
    async def test_find_what_is_wrong_with_an_expression(self, expression: str, code: str) -> None:
        issue = only(document("x", fine="1", wrong=expression))
        assert (issue.code, issue.pointer) == (code, "/nodes/1/config/values/wrong")

    async def test_error_is_no_name_for_a_value(self) -> None:
        issue = only(document("x", error="1"))
        assert (issue.code, issue.pointer) == ("invalid_value", "/nodes/1/config/values/error")

    @pytest.mark.parametrize("values", [{}, {"A": "1"}, {"a": 1}, {"a": ""}, None])
    async def test_names_and_expressions_have_a_form(self, values: Any) -> None:
        found = line(node("t", "transform", {"values": values}))
        assert issues(found)[0].pointer.startswith("/nodes/1/config/values")
