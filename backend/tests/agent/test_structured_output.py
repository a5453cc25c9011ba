"""`output_schema` of `llm` nodes: what is checked before a run, and what becomes of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.interfaces import Capability, Catalog, Finished, TextDelta
from app.agent.graph.ports import RunFailed
from tests.agent.documents import ANSWER, issues, line, llm, only
from tests.agent.doubles import Bench, Script, says

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "size": {"type": "integer"}},
    "required": ["city"],
    "additionalProperties": False,
}


def asking(output: Any = "{{ write.json }}", schema: Any = SCHEMA, **config: Any) -> dict[str, Any]:
    return line(llm("write", output_schema=schema, **config), output=output)


def catalog(*capabilities: Capability, **more: Any) -> Catalog:
    models = {"default-chat": frozenset(capabilities), "big": frozenset(Capability)}
    return Catalog(models=models, collections=frozenset({"handbook"}), **more)


class TestCheck:
    def test_types_the_output_by_the_schema(self) -> None:
        assert issues(asking("{{ write.json.city }}")) == []
        assert only(asking("{{ write.json.town }}")).code == "unknown_output"
        assert only(asking("{{ write.json.city.name }}")).code == "unknown_output"

    def test_gives_no_such_output_without_a_schema(self) -> None:
        issue = only(line(llm("write"), output="{{ write.json }}"))
        assert (issue.code, "'text'" in issue.fix) == ("unknown_output", True)

    def test_holds_a_default_against_the_schema(self) -> None:
        document = asking(on_error={"default": {"text": "", "json": "x", "citations": [], "usage": {}}})
        assert only(document).code == "type_mismatch"

    def test_knows_no_default_for_an_output_that_is_not_there(self) -> None:
        document = line(llm("write", on_error={"default": {"json": {}}}), output="x")
        assert only(document).code == "unknown_output"

    @pytest.mark.parametrize(
        ("schema", "code", "pointer"),
        [
            ({"type": "array"}, "invalid_schema", ""),
            (
                {"type": "object", "properties": {"a": {"type": "text"}}},
                "invalid_schema",
                "/properties/a/type",
            ),
            (
                {"type": "object", "properties": {"a": {"pattern": "(a+)+"}}},
                "unsupported_schema",
                "/properties/a/pattern",
            ),
            ({"type": "object", "$ref": "#/$defs/x"}, "unsupported_schema", "/$ref"),
            (
                {
                    "type": "object",
                    "properties": {"a": {"$ref": "#/$defs/x"}},
                    "$defs": {"x": {"properties": {"b": {"$ref": "#/$defs/x"}}}},
                },
                "unsupported_schema",
                "",
            ),
        ],
    )
    def test_refuses_a_schema_that_is_none_or_has_no_bound(
        self, schema: dict[str, Any], code: str, pointer: str
    ) -> None:
        issue = only(asking("{{ write.text }}", schema))
        assert (issue.code, issue.pointer) == (code, f"/nodes/1/config/output_schema{pointer}")

    def test_refuses_what_is_no_object(self) -> None:
        assert only(asking("{{ write.text }}", ["x"])).code == "wrong_type"

    def test_needs_a_model_that_can(self) -> None:
        issue = only(asking(), catalog(Capability.STREAMING))
        assert (issue.code, issue.pointer) == ("missing_capability", "/nodes/1/config/model")
        assert "'default-chat' lacks structured_output, which node 'write' needs" in issue.message
        assert "'big'" in issue.fix
        assert issues(asking(), catalog(Capability.STRUCTURED_OUTPUT)) == []

    def test_needs_nothing_special_without_a_schema(self) -> None:
        assert issues(line(llm("write"), output="{{ write.text }}", **ANSWER), catalog()) == []

    def test_says_what_to_set_where_that_is_known(self) -> None:
        remedies = {"default-chat": "set OPENAI_API_KEY"}
        assert only(asking(), catalog(remedies=remedies)).fix.endswith("; or set OPENAI_API_KEY")


class TestRun:
    async def test_asks_the_model_for_the_schema(self) -> None:
        bench = Bench(asking(), says('{"city": "Rome"}'))
        await bench.run()
        assert bench.model.requests[0].response_schema == SCHEMA

    @pytest.mark.parametrize(
        "text",
        [
            '{"city": "Rome", "size": 3}',
            '\n ```json\n{"city": "Rome", "size": 3}\n```\n',
            '```\n{"city": "Rome", "size": 3}\n```',
        ],
    )
    async def test_hands_on_what_was_parsed(self, text: str) -> None:
        result = await Bench(asking(), says(*text)).run()
        assert result.output == {"answer": {"city": "Rome", "size": 3}}

    @pytest.mark.parametrize(
        ("script", "said"),
        [
            (says("Rome"), "is not JSON: Expecting value"),
            (says(""), "is not JSON"),
            (says('{"city": "Rome"} and more'), "is not JSON: Extra data"),
            (says('{"city": NaN}'), "NaN is not JSON"),
            (says("[" * 100_000), "is not JSON"),
            (says("```" + "\n" * 100_000), "is not JSON"),
            (says('["Rome"]'), "does not fit output_schema: /: [\"Rome\"] is not of type 'object'"),
            (says('{"city": 1, "size": "big"}'), "/city: 1 is not of type 'string'; /size: 'big'"),
            (says('{"city": "Rome", "mayor": 1}'), "'mayor' was unexpected"),
            ([TextDelta('{"city": "Ro'), Finished("length")], "raise max_tokens"),
            ([TextDelta("No."), Finished("content_filter")], "the model refused to answer"),
        ],
    )
    async def test_fails_where_the_answer_is_another(self, script: Script, said: str) -> None:
        with pytest.raises(RunFailed) as failure:
            await Bench(asking(), script).run()
        assert failure.value.code == "invalid_output"
        assert said in failure.value.detail

    async def test_counts_the_tokens_of_an_answer_that_fails(self) -> None:
        with pytest.raises(RunFailed) as failure:
            await Bench(asking(), says("Rome", tokens=(5, 1))).run()
        assert failure.value.usage.output_tokens == 1

    async def test_leaves_the_error_to_the_graph(self) -> None:
        on_error = {"default": {"text": "", "json": {"city": "?"}, "citations": [], "usage": {}}}
        result = await Bench(asking(on_error=on_error), says("Rome")).run()
        assert result.output == {"answer": {"city": "?"}}

    async def test_fails_where_the_model_is_another_by_now(self, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Bench(asking("{{ write.text }}", **{}) | ANSWER, says("{}"))
        monkeypatch.setattr(type(bench.model), "capabilities", frozenset({Capability.STREAMING}))
        with pytest.raises(RunFailed, match="the model 'scripted' lacks structured_output"):
            await bench.run()
        assert bench.model.requests == []
