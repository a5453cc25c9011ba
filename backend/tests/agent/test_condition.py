"""`condition`: which way a run goes, and what is known of that before."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
import pytest_asyncio

from app.agent.graph.ports import RunFailed
from app.core.expressions import ExpressionLimits, ExpressionPool, open_expressions
from tests.agent.documents import codes, end, graph, issues, node, only, text
from tests.agent.doubles import Bench

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[ExpressionPool]:
    async with open_expressions(ExpressionLimits(timeout_s=0.1, grace_s=0.1)) as opened:
        yield opened


def condition(*whens: str, **policies: Any) -> dict[str, Any]:
    branches = [{"handle": f"h{i}", "when": when} for i, when in enumerate(whens)]
    return node("c", "condition", {"branches": branches}, **policies)


def document(*whens: str, inputs: Mapping[str, Any] | None = None, **policies: Any) -> dict[str, Any]:
    """Each way out of a condition leads to a text with its name; the output is the one that was made."""
    ways = [*(f"h{i}" for i in range(len(whens))), "else"]
    texts = [text(f"t_{way}", way) for way in ways]
    edges = ["start > c", *(f"c.{way} > t_{way}" for way in ways), *(f"t_{way} > done" for way in ways)]
    made = end(way="{{ " + " ?? ".join(f"t_{way}.text" for way in ways) + " }}")
    found = graph(condition(*whens, **policies), *texts, made, edges=edges)
    properties = inputs or {"n": {"type": "integer"}, "s": {"type": "string"}, "x": {}}
    found["inputs"] = {"type": "object", "properties": dict(properties), "required": list(properties)}
    return found


async def way(pool: ExpressionPool, found: dict[str, Any], **inputs: Any) -> Any:
    bench = Bench(found, expressions=pool)
    given = {"n": 0, "s": "", "x": None, **inputs}
    result = await bench.given(given)
    return result.output["way"]


class TestRun:
    @pytest.mark.parametrize(("n", "taken"), [(11, "h0"), (10, "h1"), (4, "h1"), (3, "else")])
    async def test_leaves_by_the_first_branch_that_is_true(
        self, pool: ExpressionPool, n: int, taken: str
    ) -> None:
        found = document("{{ inputs.n }} > 10", "{{ inputs.n }} % 2 == 0")
        assert await way(pool, found, n=n) == taken

    async def test_later_branches_are_not_evaluated(self, pool: ExpressionPool) -> None:
        assert await way(pool, document("True", "1 // {{ inputs.n }} == 1")) == "h0"

    @pytest.mark.parametrize("value", [0, 1, "true", [], {}, None, 1.5])
    async def test_what_is_neither_true_nor_false_is_an_error(self, pool: ExpressionPool, value: Any) -> None:
        with pytest.raises(RunFailed, match="not true or false: compare it") as failure:
            await way(pool, document("{{ inputs.x }}"), x=value)
        assert failure.value.code == "not_boolean"

    @pytest.mark.parametrize(
        ("when", "code"),
        [
            ("{{ inputs.x }} > 1", "expression_failed"),
            ("9**9**7 > {{ inputs.n }}", "expression_limit"),
            ("{{ session.variables.absent }} == 1", "unset_reference"),
        ],
    )
    async def test_an_expression_that_fails_fails_the_node(
        self, pool: ExpressionPool, when: str, code: str
    ) -> None:
        with pytest.raises(RunFailed) as failure:
            await way(pool, document(when))
        assert failure.value.code == code

    async def test_a_default_leaves_by_else(self, pool: ExpressionPool) -> None:
        assert await way(pool, document("{{ inputs.x }} > 1", on_error={"default": {}})) == "else"

    async def test_says_which_branch_it_took(self, pool: ExpressionPool) -> None:
        found = document("{{ inputs.n }} == 0")
        found["nodes"][-1]["config"]["output"] = {"way": "{{ c.branch }}"}
        assert await way(pool, found) == "h0"

    async def test_text_of_a_user_is_never_code(self, pool: ExpressionPool) -> None:
        hostile = "' or True or '"
        assert await way(pool, document("{{ inputs.s }} == 'x'"), s=hostile) == "else"
        assert await way(pool, document("{{ inputs.s }} + '' == 'x'"), s=hostile) == "else"

    async def test_counts_as_pure(self) -> None:
        assert Bench(document("True")).agent.plan.nodes[1].effect == "pure"


class TestChecks:
    @pytest.mark.parametrize(
        ("when", "code", "where"),
        [
            ("{{ inputs.n }} >", "invalid_expression", "at character"),
            ("n > 1", "invalid_expression", "'n' is not defined"),
            ("{{ inputs..n }} > 1", "invalid_reference", "at character 10"),
            ("{{ inputs.m }} > 1", "unknown_reference", "there is no 'm'"),
            ("{{ t_h0.text }} == ''", "not_yet_run", "cannot have run before 'c'"),
            ("{{ inputs.n }} + 1 == {{ nowhere.x }}", "unknown_reference", "'nowhere'"),
            ("{{ inputs.s }} > 1", "type_mismatch", "compares string with integer"),
            ("{{ inputs.n }}", "type_mismatch", "is integer, but 'when' takes boolean"),
            ("len({{ inputs.s }})", "type_mismatch", "is integer, but 'when' takes boolean"),
        ],
    )
    async def test_find_what_is_wrong_with_an_expression(self, when: str, code: str, where: str) -> None:
        issue = only(document(when))
        assert (issue.code, issue.pointer, issue.node_id) == (code, "/nodes/1/config/branches/0/when", "c")
        assert where in issue.message

    async def test_a_value_that_may_be_absent_needs_a_fallback(self) -> None:
        found = document("{{ inputs.n }} > 1")
        found["inputs"]["required"] = []
        assert only(found).code == "maybe_unset"
        found["nodes"][1]["config"]["branches"][0]["when"] = "({{ inputs.n ?? null }} or 0) > 1"
        assert issues(found) == []

    @pytest.mark.parametrize("handle", ["else", "out", "error", "Big", "", "a-b"])
    async def test_handles_are_names_and_not_taken_ones(self, handle: str) -> None:
        found = document("True")
        found["nodes"][1]["config"]["branches"][0]["handle"] = handle
        found["edges"][1]["handle"] = handle or "x"
        assert "/nodes/1/config/branches/0/handle" in [issue.pointer for issue in issues(found)]

    async def test_handles_differ(self) -> None:
        found = document("True", "False")
        found["nodes"][1]["config"]["branches"][1]["handle"] = "h0"
        issue = issues(found)[0]
        assert (issue.code, issue.pointer) == ("invalid_value", "/nodes/1/config/branches/1/handle")
        assert "the handle 'h0' is that of branch 0 already" in issue.message

    async def test_handles_differ_also_beside_one_that_is_wrong(self) -> None:
        found = document("True", "False", "True")
        for branch, handle in zip(found["nodes"][1]["config"]["branches"], ["h0", "h0", "else"], strict=True):
            branch["handle"] = handle
        places = [issue.pointer for issue in issues(found) if "branches" in issue.pointer]
        assert places == [f"/nodes/1/config/branches/{index}/handle" for index in (1, 2)]

    @pytest.mark.parametrize("way", ["h0", "else"])
    async def test_every_way_out_leads_on(self, way: str) -> None:
        found = document("True")
        found["edges"] = [edge for edge in found["edges"] if edge.get("handle") != way]
        found["nodes"] = [part for part in found["nodes"] if part["id"] != f"t_{way}"]
        found["edges"] = [edge for edge in found["edges"] if edge["source"] != f"t_{way}"]
        found["nodes"][-1]["config"]["output"] = {}
        issue = only(found)
        assert (issue.code, f"handle {way!r}" in issue.message) == ("no_path_to_end", True)

    async def test_an_unknown_handle_names_those_there_are(self) -> None:
        found = document("True")
        found["edges"].append({"source": "c", "handle": "elze", "target": "done"})
        issue = only(found)
        assert (issue.code, "'h0', 'else', 'error'" in issue.fix) == ("unknown_handle", True)

    async def test_what_one_branch_makes_is_unset_on_the_others(self) -> None:
        found = document("True")
        found["nodes"][-1]["config"]["output"] = {"way": "{{ t_h0.text }}"}
        assert codes(found) == ["maybe_unset"]

    async def test_two_ends_on_two_branches_exclude_each_other(self) -> None:
        found = graph(
            condition("True"), end("one"), end("two"), edges=["start > c", "c.h0 > one", "c.else > two"]
        )
        assert issues(found) == []
        found["edges"].append({"source": "c", "handle": "h0", "target": "two"})
        assert codes(found) == ["multiple_ends"]
