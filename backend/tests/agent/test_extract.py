"""`extract`: data out of a text, in the form that was asked for or not at all."""

from __future__ import annotations

import json
from typing import Any

import pytest

from app.agent.core.interfaces import Capability, Catalog, Finished, TextDelta
from app.agent.graph.ports import RunFailed
from tests.agent.documents import ANSWER, end, graph, issues, line, node, only, text
from tests.agent.doubles import Bench, ScriptedModel, says

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}
ROME = {"city": "Rome", "size": 3}


def document(output: Any = "{{ x.json }}", schema: Any = SCHEMA, **config: Any) -> dict[str, Any]:
    policies = {key: config.pop(key) for key in ("on_error",) if key in config}
    settings = {"model": "main", "input": "{{ inputs.question }}", "output_schema": schema, **config}
    return line(node("x", "extract", settings, **policies), output=output)


class TestRun:
    async def test_hands_on_what_fits_the_schema(self) -> None:
        found = document(
            {"data": "{{ x.json }}", "again": "{{ x.repaired }}", "cost": "{{ x.usage.input_tokens }}"}
        )
        bench = Bench(found, says(json.dumps(ROME)))
        assert (await bench.run()).output["answer"] == {"data": ROME, "again": False, "cost": 3}

    async def test_gives_the_model_the_text_the_schema_and_the_instructions(self) -> None:
        bench = Bench(
            document(instructions="Sizes in km², please: {{ inputs.question }}", max_tokens=50),
            says("{}"),
            says('{"city": ""}'),
        )
        await bench.run()
        request = bench.model.requests[0]
        assert (request.response_schema, request.max_tokens) == (SCHEMA, 50)
        assert [message.role for message in request.messages] == ["system", "user"]
        assert request.messages[0].content.endswith("Sizes in km², please: Why?")
        assert request.messages[1].content == "Why?"

    async def test_writes_the_schema_into_the_prompt_where_the_model_takes_none(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ScriptedModel, "capabilities", frozenset({Capability.INSTRUCTIONS}))
        bench = Bench(document(), says(f"```json\n{json.dumps(ROME)}\n```"))
        assert (await bench.run()).output["answer"] == ROME
        (request,) = bench.model.requests
        assert request.response_schema is None
        assert json.dumps(SCHEMA) in request.messages[0].content

    @pytest.mark.parametrize(
        ("wrong", "told"),
        [
            ("Rome", "This is not JSON: Expecting value"),
            (
                '{"city": 1, "size": "big"}',
                "/city: 1 is not of type 'string'\n/size: 'big' is not of type 'integer'",
            ),
            ('{"size": 1}', "/: 'city' is a required property"),
            ("", "This is not JSON"),
        ],
    )
    async def test_tells_the_model_what_is_wrong_and_takes_its_second_answer(
        self, wrong: str, told: str
    ) -> None:
        bench = Bench(
            document({"j": "{{ x.json }}", "r": "{{ x.repaired }}", "u": "{{ x.usage }}"}),
            says(wrong),
            says(json.dumps(ROME)),
        )
        result = await bench.run()
        usage = {"input_tokens": 6, "output_tokens": 4}
        assert result.output["answer"] == {"j": ROME, "r": True, "u": usage}
        second = bench.model.requests[1]
        assert second.response_schema == SCHEMA
        assert told in second.messages[-1].content
        assert [message.content for message in second.messages if message.role == "assistant"] == (
            [wrong] if wrong else []
        )

    async def test_fails_where_the_second_answer_does_not_fit_either(self) -> None:
        bench = Bench(document(), says("Rome"), says('{"city": 5}'))
        with pytest.raises(RunFailed, match="/city: 5 is not of type 'string'") as failure:
            await bench.run()
        assert (failure.value.code, len(bench.model.requests)) == ("invalid_output", 2)
        assert failure.value.usage.output_tokens == 4

    async def test_a_failure_leaves_by_the_error_handle(self) -> None:
        settings = {"model": "main", "input": "x", "output_schema": SCHEMA}
        found = graph(
            node("x", "extract", settings),
            text("t", "{{ x.error.code }}"),
            end(answer="{{ x.json.city ?? t.text }}"),
            edges=["start > x", "x > done", "x.error > t", "t > done"],
        )  # fmt: skip
        assert (await Bench(found, says("no")).run()).output == {"answer": "invalid_output"}

    async def test_a_failure_can_have_a_default(self) -> None:
        found = document(on_error={"default": {"json": {"city": "?"}}})
        assert (await Bench(found, says("no")).run()).output == {"answer": {"city": "?"}}

    async def test_an_answer_that_was_cut_off_is_not_asked_for_again(self) -> None:
        bench = Bench(document(), [TextDelta('{"city": "Ro'), Finished("length")])
        with pytest.raises(RunFailed, match="raise max_tokens"):
            await bench.run()
        assert len(bench.model.requests) == 1

    async def test_an_empty_text_has_nothing_to_extract(self) -> None:
        with pytest.raises(RunFailed) as failure:
            await Bench(document(input=" ")).run()
        assert failure.value.code == "bad_request"

    async def test_nothing_of_it_is_shown_as_text(self) -> None:
        bench = Bench(document("{{ x.json.city }}") | ANSWER, says(json.dumps(ROME)))
        await bench.run()
        assert bench.log.text == "Rome"


class TestChecks:
    def test_type_the_output_by_the_schema(self) -> None:
        assert issues(document("{{ x.json.city }}")) == []
        assert only(document("{{ x.json.town }}")).code == "unknown_output"
        assert only(document("{{ x.json.city.name }}")).code == "unknown_output"

    @pytest.mark.parametrize(
        ("schema", "code", "pointer"),
        [
            ({"type": "array"}, "invalid_schema", ""),
            ({"type": "object", "properties": {"a": {"pattern": "(a+)+"}}}, "unsupported_schema",
             "/properties/a/pattern"),
            ("x", "wrong_type", ""),
        ],
    )  # fmt: skip
    def test_refuse_a_schema_that_is_none(self, schema: Any, code: str, pointer: str) -> None:
        issue = only(document("x", schema))
        assert (issue.code, issue.pointer) == (code, f"/nodes/1/config/output_schema{pointer}")

    def test_need_a_model_that_follows_instructions(self) -> None:
        models = {"default-chat": frozenset({Capability.STREAMING, Capability.STRUCTURED_OUTPUT})}
        issue = only(document(), Catalog(models, collections=frozenset({"handbook"})))
        assert (issue.code, "lacks instructions" in issue.message) == ("missing_capability", True)
