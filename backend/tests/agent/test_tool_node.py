"""`tool`: what is checked before the run, what is called, and how failures are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from app.agent.core.interfaces import ToolDefinition, ToolEffect, ToolFailed, ToolOffer, ToolResult
from app.agent.graph.ports import RunFailed
from tests.agent.documents import CATALOG, end, graph, issues, node
from tests.agent.doubles import Bench

SCHEMA = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "minLength": 2},
        "days": {"type": "integer", "default": 1},
        "place": {"type": "object", "properties": {"zip": {"type": "string"}}},
    },
    "required": ["city", "days"],
}
WEATHER = ToolOffer(ToolDefinition("weather", "The weather.", SCHEMA), "read")
TIDES = replace(WEATHER, definition=replace(WEATHER.definition, name="tides"))
OFFERING = replace(CATALOG, tools={"sky": [WEATHER], "earth": [WEATHER, TIDES]})


@dataclass
class Listed:
    """A tool that notes its calls, and answers or raises in turn."""

    answers: list[ToolResult | ToolFailed]
    name: str = "weather"
    effect: ToolEffect = "write"
    needs_approval: bool = False
    schema: Mapping[str, Any] = field(default_factory=lambda: SCHEMA)
    calls: list[tuple[Mapping[str, Any], str | None]] = field(default_factory=list)

    @property
    def definition(self) -> ToolDefinition:
        return ToolDefinition(self.name, "", self.schema)

    async def call(self, arguments: Mapping[str, Any], *, idempotency_key: str | None) -> ToolResult:
        self.calls.append((arguments, idempotency_key))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, ToolFailed):
            raise answer
        return answer


class Shelf:
    """What the names of one project stand for."""

    def __init__(self, **tools: Sequence[Listed]) -> None:
        self.kept = tools

    async def tools(self, reference: str) -> Sequence[Listed]:
        return self.kept[reference]


SUNNY = ToolResult({"sky": "clear"}, "Sunny.")


def document(target: str = "sky", /, **config: Any) -> dict[str, Any]:
    policies = {key: config.pop(key) for key in ("retry", "effect") if key in config}
    found = graph(
        node("call", "tool", {"tool": "it", "arguments": {"city": "Rome"}} | config, **policies),
        end(result="{{ call.result }}", text="{{ call.text }}"),
        edges=["start > call", "call > done"],
    )
    found["bindings"]["tools"] = {"it": target}
    found["inputs"] = {
        "type": "object",
        "properties": {"city": {"type": "string"}, "n": {"type": "number"}, "list": {"type": "array"}},
        "required": ["city", "n", "list"],
    }
    return found


GIVEN = {"city": "Oslo", "n": 1, "list": []}


class TestCheck:
    def test_a_call_that_fits_is_sound(self) -> None:
        config = {
            "city": "{{ inputs.city }}",
            "days": "{{ inputs.n }}",
            "place": {"zip": "{{ inputs.city }}"},
        }
        assert issues(document(arguments=config), OFFERING) == []

    @pytest.mark.parametrize(
        ("target", "config", "code", "pointer"),
        [
            ("earth", {}, "unknown_operation", ""),
            ("earth", {"operation": "tide"}, "unknown_operation", "/operation"),
            ("sky", {"arguments": {}}, "missing_argument", "/arguments"),
            ("sky", {"arguments": {"city": "Rome", "town": 1}}, "unknown_argument", "/arguments/town"),
            ("sky", {"arguments": {"city": "R"}}, "invalid_value", "/arguments/city"),
            ("sky", {"arguments": {"city": "{{ inputs.list }}"}}, "type_mismatch", "/arguments/city"),
            (
                "sky", {"arguments": {"city": "Rome", "place": {"zip": "{{ inputs.n }}"}}},
                "type_mismatch", "/arguments/place/zip",
            ),
        ],
    )  # fmt: skip
    def test_a_call_that_cannot_go_well_is_told(
        self, target: str, config: dict[str, Any], code: str, pointer: str
    ) -> None:
        found = issues(document(target, **config), OFFERING)
        place = found[0].pointer.partition("/config")[2]
        assert [(issue.code) for issue in found] == [code]
        assert place == pointer

    def test_an_unknown_operation_names_those_there_are(self) -> None:
        (issue,) = issues(document("earth", operation="tide"), OFFERING)
        assert "did you mean 'tides'?" in issue.fix

    def test_an_unbound_name_is_told(self) -> None:
        assert [issue.code for issue in issues(document(tool="that"), OFFERING)] == ["unbound"]

    def test_without_a_catalog_calls_are_taken_on_trust(self) -> None:
        assert issues(document(arguments={"town": 1})) == []


class TestCall:
    async def test_hands_on_result_and_text(self) -> None:
        tool = Listed([SUNNY])
        result = await Bench(
            document(arguments={"city": "{{ inputs.city }}"}), tools=Shelf(sky=[tool])
        ).given(GIVEN, "r")
        assert result.output == {"result": {"sky": "clear"}, "text": "Sunny."}
        assert [given for given, _ in tool.calls] == [{"city": "Oslo"}]

    async def test_calls_the_operation_that_is_named(self) -> None:
        one, other = Listed([SUNNY]), Listed([SUNNY], name="tides")
        await Bench(document("earth", operation="tides"), tools=Shelf(earth=[one, other])).given(GIVEN, "r")
        assert (len(one.calls), len(other.calls)) == (0, 1)

    async def test_has_one_idempotency_key_in_every_attempt(self) -> None:
        tool = Listed([ToolFailed("busy", code="rate_limit"), SUNNY])
        retry = {"max_attempts": 2, "initial_s": 0}
        await Bench(document(retry=retry), tools=Shelf(sky=[tool])).given(GIVEN, "r")
        keys = [key for _, key in tool.calls]
        assert keys[0] is not None
        assert keys == [keys[0]] * 2

    async def test_has_no_idempotency_key_where_nothing_is_written(self) -> None:
        tool = Listed([SUNNY], effect="read")
        await Bench(document(effect="read"), tools=Shelf(sky=[tool])).given(GIVEN, "r")
        assert tool.calls[0][1] is None

    @pytest.mark.parametrize(
        ("answer", "code"),
        [
            (ToolFailed("away", code="server_error"), "server_error"),
            (ToolFailed("no", code="tool_changed"), "tool_changed"),
            (ToolResult(None, "I cannot.", is_error=True), "tool_error"),
        ],
    )
    async def test_a_failed_call_fails_the_node_with_its_code(
        self, answer: ToolResult | ToolFailed, code: str
    ) -> None:
        with pytest.raises(RunFailed) as failure:
            await Bench(document(), tools=Shelf(sky=[Listed([answer])])).given(GIVEN, "r")
        assert failure.value.code == code

    async def test_an_operation_that_is_gone_fails_the_node(self) -> None:
        shelf = Shelf(sky=[Listed([SUNNY])])
        with pytest.raises(RunFailed, match="valid: 'weather'") as failure:
            await Bench(document(operation="tides"), tools=shelf).given(GIVEN, "r")
        assert failure.value.code == "unknown_operation"
