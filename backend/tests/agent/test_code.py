"""`code`: what goes in and comes out, how it fails, and what is found before a run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from app.agent.core.interfaces import StepRecord
from app.agent.graph.code_rules import MODULES
from app.agent.graph.ports import Past, RunFailed
from app.core.sandbox.code import CodeLimits, CodePool, open_code
from tests.agent.documents import codes, end, graph, issues, line, node, only, text
from tests.agent.doubles import Bench, Log

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def pool() -> AsyncIterator[CodePool]:
    async with open_code(CodeLimits(timeout_s=1, grace_s=0.3)) as opened:
        yield opened


def code(source: str, outputs: Any = None, /, **inputs: Any) -> dict[str, Any]:
    return node(
        "c", "code", {"code": source, "inputs": inputs, "outputs": {} if outputs is None else outputs}
    )


def document(
    source: str, outputs: Any = None, /, output: Any = "{{ c.logs }}", **inputs: Any
) -> dict[str, Any]:
    return line(code(source, outputs, **inputs), output=output)


async def answer(pool: CodePool, found: dict[str, Any]) -> Any:
    return (await Bench(found, code=pool).run()).output["answer"]


async def failure(pool: CodePool, found: dict[str, Any]) -> RunFailed:
    with pytest.raises(RunFailed) as failed:
        await Bench(found, code=pool).run()
    return failed.value


class TestRun:
    async def test_gives_its_variables_and_what_it_printed(self, pool: CodePool) -> None:
        found = document(
            "words = text.split()\nfor w in words:\n    counts[w] = len(w)\nprint(len(words), 'words')",
            {"words": "array", "counts": "object"},
            output={"words": "{{ c.words }}", "n": "{{ c.counts.two }}", "said": "{{ c.logs }}"},
            text="one two",
            counts={},
        )
        assert await answer(pool, found) == {"words": ["one", "two"], "n": 3, "said": "2 words\n"}

    async def test_inputs_keep_their_values(self, pool: CodePool) -> None:
        found = document(
            "seen = [type(q).__name__, type(n).__name__, type(deep['x'][0]).__name__]", {"seen": "array"},
            output="{{ c.seen }}", q="{{ inputs.question }}", n=1.5, deep={"x": [None]},
        )  # fmt: skip
        assert await answer(pool, found) == ["str", "float", "NoneType"]

    async def test_text_of_a_user_is_never_code(self, pool: CodePool) -> None:
        found = document("x = q", {"x": "string"}, output="{{ c.x }}", q="{{ inputs.question }}")
        result = await Bench(found, code=pool).run(question="1\nimport os")
        assert result.output["answer"] == "1\nimport os"

    async def test_braces_in_code_are_python(self, pool: CodePool) -> None:
        found = document("n = 1\nx = f'{n} {{n}}'\ny = {'a': {'b': 1}}", {"x": "string"}, output="{{ c.x }}")
        assert await answer(pool, found) == "1 {n}"

    @pytest.mark.parametrize(
        ("source", "outputs", "said"),
        [
            ("x = '1'", {"x": "integer"}, "x: '1' is not of type 'integer'"),
            ("x = None", {"x": "string"}, "x: null is not of type 'string'"),
            (
                "x = [1, 'a']",
                {"x": {"type": "array", "items": {"type": "integer"}}},
                "x/1: 'a' is not of type",
            ),
            ("x = {}", {"x": {"type": "object", "required": ["k"]}}, "x: 'k' is a required property"),
        ],
    )
    async def test_outputs_of_another_type_fail(
        self, pool: CodePool, source: str, outputs: Any, said: str
    ) -> None:
        failed = await failure(pool, document(source, outputs))
        assert failed.code == "invalid_output"
        assert said in failed.detail

    @pytest.mark.parametrize(
        ("source", "code", "said"),
        [
            ("x = 1\ny = x / 0", "code_failed", "line 2: ZeroDivisionError"),
            ("while True:\n    pass", "code_limit", "longer than 1 s"),
            ("for _ in range(50): x = 9**9**7", "code_limit", "longer than 1 s"),
            ("x = 'a' * 10**10", "code_limit", "bytes"),
        ],
    )
    async def test_code_that_fails_fails_the_node_and_the_next_one_runs(
        self, pool: CodePool, source: str, code: str, said: str
    ) -> None:
        failed = await failure(pool, document(source))
        assert failed.code == code
        assert said in failed.detail
        assert await answer(pool, document("print('fine')")) == "fine\n"

    async def test_an_input_that_is_not_set_fails_the_node(self, pool: CodePool) -> None:
        failed = await failure(pool, document("x = 1", x="{{ session.variables.absent }}"))
        assert failed.code == "unset_reference"

    async def test_a_failure_leaves_by_the_error_handle(self, pool: CodePool) -> None:
        found = graph(
            code("raise ValueError('no')"),
            text("t", "{{ c.error.message }}"),
            end(answer="{{ c.logs ?? t.text }}"),
            edges=["start > c", "c > done", "c.error > t", "t > done"],
        )  # fmt: skip
        assert "ValueError: no" in await answer(pool, found)

    async def test_where_no_sandbox_was_opened_it_fails(self) -> None:
        with pytest.raises(RunFailed, match="this process runs no code"):
            await Bench(document("x = 1")).run()

    async def test_a_run_that_goes_on_keeps_its_outcome(self, pool: CodePool) -> None:
        found = document("import random\nx = random.random()", {"x": "number"}, output="{{ c.x }}")
        first = Bench(found, code=pool)
        drawn = (await first.run()).output["answer"]
        again = Bench(found, code=pool)
        again.log = Log(*(step for step in first.log.steps if isinstance(step, StepRecord)))
        result = await again.given({"question": "Why?"}, past=Past(continued=1, begun=True))
        assert result.output["answer"] == drawn

    @pytest.mark.parametrize("module", MODULES)
    async def test_every_module_that_it_may_import_is_there(self, pool: CodePool, module: str) -> None:
        assert await pool.run(f"import {module}", {}, []) == ({}, "")


class TestChecks:
    async def test_type_the_outputs(self) -> None:
        outputs = {"n": "integer", "row": {"type": "object", "properties": {"a": {"type": "string"}}}}
        source = "n = 1\nrow = {'a': 'b'}"
        assert issues(document(source, outputs, output=["{{ c.n }}", "{{ c.row }}", "{{ c.logs }}"])) == []
        assert codes(document(source, outputs, output="{{ c.row.b }}")) == ["unknown_output"]
        assert codes(document(source, outputs, output="{{ c.n.a }}")) == ["unknown_output"]
        assert codes(document(source, outputs, output="{{ c.m }}")) == ["unknown_output"]

    @pytest.mark.parametrize(
        ("source", "said"),
        [
            ("x = = 1", "line 1: invalid syntax"),
            ("x = 1\nif x\n    x = 2", "line 2: expected ':'"),
            ("x = 1\n  y = 2", "line 2: unexpected indent"),
            ("x = (" * 300, "line 1"),
            ("\0", "line 1"),
            ("import os", "line 1: the module 'os' is out of reach"),
            ("x = 1\nimport subprocess as s", "line 2: the module 'subprocess' is out of reach"),
            ("from urllib.request import urlopen", "the module 'urllib.request' is out of reach"),
            ("from . import x", "the module '.' is out of reach"),
            ("from math import *", "'import *' is not part of code"),
            ("def f():\n    yield 1", "line 2: 'yield' is not part of code"),
            ("def f():\n    yield from []", "line 2: 'yield from' is not part of code"),
            ("x = 1\ndel x", "line 2: 'del' is not part of code"),
            ("async def f():\n    pass", "line 1: 'async' is not part of code"),
            ("class A(Exception):\n    pass", "line 1: the class 'A' has bases"),
        ],
    )
    async def test_find_what_is_wrong_with_the_code(self, source: str, said: str) -> None:
        issue = only(document(source))
        assert (issue.code, issue.pointer, issue.node_id) == ("invalid_value", "/nodes/1/config/code", "c")
        assert said in issue.message

    async def test_name_the_modules_there_are(self) -> None:
        assert "'math'" in only(document("import os")).fix

    @pytest.mark.parametrize(
        "source",
        [
            "x = 1", "x: int = 1", "x, y = 1, 2", "for x in []:\n    pass", "import math as x",
            "def x():\n    pass", "if (x := 1):\n    pass", "match 1:\n    case x:\n        pass",
            "x = 0\nx += 1",
        ],
    )  # fmt: skip
    async def test_know_what_assigns_an_output(self, source: str) -> None:
        assert issues(document(source, {"x": {}})) == []

    async def test_find_an_output_that_is_never_assigned(self) -> None:
        issue = only(document("y = x", {"x": "string"}))
        assert (issue.pointer, issue.fix) == ("/nodes/1/config/code", "write 'x = …'")
        assert "the output 'x' is never assigned" in issue.message

    async def test_an_input_may_be_an_output(self) -> None:
        assert issues(document("x.append(1)", {"x": "array"}, x=[])) == []

    @pytest.mark.parametrize("name", ["logs", "error", "class", "if"])
    async def test_refuse_outputs_with_names_that_mean_something_else(self, name: str) -> None:
        issue = only(document("x = 1", {name: "string"}))
        assert (issue.code, issue.pointer) == ("invalid_value", f"/nodes/1/config/outputs/{name}")

    async def test_refuse_inputs_that_are_words_of_python(self) -> None:
        issue = only(document("x = 1", **{"import": 1}))
        assert (issue.code, issue.pointer) == ("invalid_value", "/nodes/1/config/inputs/import")

    @pytest.mark.parametrize(
        ("output", "code", "place", "said"),
        [
            ("text", "invalid_value", "", "'string'"),
            (5, "wrong_type", "", "'string'"),
            ({"type": "text"}, "invalid_schema", "/type", "is no JSON type"),
            ({"pattern": "(a+)+"}, "unsupported_schema", "/pattern", "pattern"),
        ],
    )
    async def test_refuse_what_is_no_type(self, output: Any, code: str, place: str, said: str) -> None:
        issue = only(document("x = 1", {"x": output}))
        assert (issue.code, issue.pointer) == (code, f"/nodes/1/config/outputs/x{place}")
        assert said in issue.message

    async def test_inputs_are_checked_like_every_reference(self) -> None:
        issue = only(document("y = x", x={"deep": ["{{ inputs.nowhere }}"]}))
        assert (issue.code, issue.pointer) == ("unknown_reference", "/nodes/1/config/inputs/x/deep/0")

    async def test_counts_as_read(self) -> None:
        assert Bench(document("x = 1")).agent.plan.nodes[1].effect == "read"
