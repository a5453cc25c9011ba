"""`agent`: the loop of model and tools, what is told and journalled of it."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from app.agent.core.interfaces import (
    Capability,
    Finished,
    ModelError,
    Role,
    StepRecord,
    ToolCall,
    ToolChoice,
    ToolFailed,
    ToolResult,
)
from app.agent.core.limits import EngineLimits
from app.agent.graph.functions import shown_names
from app.agent.graph.ports import RunFailed
from tests.agent.agent_calls import document, wants
from tests.agent.documents import issues
from tests.agent.doubles import Bench, Script, ScriptedModel, says
from tests.agent.test_tool_node import OFFERING, SUNNY, WEATHER, Listed, Shelf

ABLE = replace(OFFERING, models={"default-chat": frozenset(Capability)})
SKY = {"tools": {"sky": "sky"}}
ROME = ("weather", {"city": "Rome"})


def bench(*scripts: Script, shelf: Any = None, bindings: Any = None, **config: Any) -> Bench:
    """`shelf` is what the names of tools stand for."""
    kept = shelf or Shelf(sky=[Listed([SUNNY], effect="read")])
    made = document(bindings=SKY if bindings is None else bindings, **({"tools": ["sky"]} | config))
    return Bench(made, *scripts, tools=kept)


class Meeting(Listed):
    """A tool that answers once so many calls are under way at once; `most` is how many there were."""

    def __init__(self, many: int) -> None:
        super().__init__([SUNNY])
        self.many, self.open, self.most = many, 0, 0
        self.met = asyncio.Event()

    async def call(self, arguments: Mapping[str, Any], *, idempotency_key: str | None) -> ToolResult:
        self.open += 1
        self.most = max(self.most, self.open)
        if self.open == self.many:
            self.met.set()
        await self.met.wait()
        await asyncio.sleep(0)
        self.open -= 1
        return ToolResult(None, "met")


def calls_of(log: Any) -> list[StepRecord]:
    return [step for step in log.steps if step.call]


class TestLoop:
    async def test_calls_tools_until_the_model_answers(self) -> None:
        run = bench(wants(ROME, text="Let me look."), says("It is ", "sunny."))
        result = await run.run()
        output = result.output
        assert (output["answer"], output["iterations"], output["stopped_by"]) == ("It is sunny.", 2, "answer")
        (call,) = output["tool_calls"]
        assert (call["name"], call["arguments"]) == ("weather", {"city": "Rome", "days": 1})
        assert (call["result"], call["text"], call["error"]) == ({"sky": "clear"}, "Sunny.", None)
        told = run.model.requests[1].messages
        assert [message.role for message in told] == [Role.SYSTEM, Role.USER, Role.ASSISTANT, Role.TOOL]
        assert (told[3].content, told[3].tool_call_id) == ("Sunny.", "call_0")
        assert result.usage.input_tokens == 13

    async def test_journals_every_call_on_its_own(self) -> None:
        run = bench(wants(ROME, ROME), says("Sunny."))
        await run.run()
        found = [(step.node_type, step.call, step.status) for step in calls_of(run.log)]
        assert sorted(found, key=lambda one: one[1]) == [
            ("model", 1, "succeeded"), ("tool", 2, "succeeded"),
            ("tool", 3, "succeeded"), ("model", 4, "succeeded"),
        ]  # fmt: skip


class TestHostileCalls:
    """Whatever is wrong with a call is told to the model, which goes on."""

    @pytest.mark.parametrize(
        ("call", "code", "said"),
        [
            (("weather", '{"city": '), "invalid_arguments", "not JSON"),
            (("weather", "[1]"), "invalid_arguments", "not a JSON object"),
            (("weather", '{"city": NaN}'), "invalid_arguments", "not JSON"),
            (("weather", '{"city": 1e999}'), "invalid_arguments", "not JSON"),
            (("weather", '{"city": "\\ud800"}'), "invalid_arguments", "not JSON"),
            (("weather", "[" * 100_000), "invalid_arguments", "not JSON"),
            (("weather", {"city": 7}), "invalid_arguments", "do not fit"),
            (("weather", {}), "invalid_arguments", "city"),
            (("wether", {"city": "Rome"}), "unknown_operation", "valid: 'weather'"),
            (("x" * 5000, {}), "unknown_operation", "there is no tool"),
        ],
    )
    async def test_is_told(self, call: tuple[str, Any], code: str, said: str) -> None:
        tool = Listed([SUNNY])
        run = bench(wants(call), says("Sorry."), shelf=Shelf(sky=[tool]))
        output = (await run.run()).output
        (told,) = output["tool_calls"]
        assert (output["answer"], told["error"]["code"], tool.calls) == ("Sorry.", code, [])
        assert said in run.model.requests[1].messages[-1].content
        assert len(told["name"]) <= 200

    async def test_a_failing_tool_is_told(self) -> None:
        failing = Listed([ToolFailed("it is closed", code="http_status")])
        output = (await bench(wants(ROME), says("Closed."), shelf=Shelf(sky=[failing])).run()).output
        (told,) = output["tool_calls"]
        assert (told["error"]["code"], told["text"]) == ("http_status", "Error (http_status): it is closed")

    async def test_a_tool_that_says_that_it_failed_is_told(self) -> None:
        failing = Listed([ToolResult(None, "No such city.", is_error=True)])
        output = (await bench(wants(ROME), says("None."), shelf=Shelf(sky=[failing])).run()).output
        assert output["tool_calls"][0]["error"] == {"code": "tool_error", "message": "No such city."}

    async def test_calls_with_the_same_id_are_told_apart(self) -> None:
        script = [ToolCall("same", "weather", '{"city": "Rome"}')] * 2
        run = bench([*script, Finished("tool_calls")], says("Done."))
        await run.run()
        told = run.model.requests[1].messages
        assert [call.id for call in told[2].tool_calls] == [one.tool_call_id for one in told[3:]]
        assert len({one.tool_call_id for one in told[3:]}) == 2
        started = [event.tool_call_id for event in run.log.events if event.type.value == "TOOL_CALL_START"]
        assert len(set(started)) == 2


class TestSideBySide:
    async def test_calls_of_one_answer_run_at_once(self) -> None:
        meeting = Meeting(2)
        output = (await bench(wants(ROME, ROME), says("Done."), shelf=Shelf(sky=[meeting])).run()).output
        assert [call["text"] for call in output["tool_calls"]] == ["met", "met"]

    @pytest.mark.parametrize("config", [{"concurrency": 1}, {"parallel_tool_calls": False}])
    async def test_at_most_as_many_as_may_be(self, config: dict[str, Any]) -> None:
        meeting = Meeting(1)
        run = bench(wants(ROME, ROME, ROME), says("Done."), shelf=Shelf(sky=[meeting]), **config)
        await run.run()
        assert meeting.most == 1
        assert run.model.requests[0].parallel_tool_calls is config.get("parallel_tool_calls", True)

    async def test_too_many_calls_are_not_made(self) -> None:
        tool = Listed([SUNNY])
        run = bench(wants(*[ROME] * 3), says("Done."), shelf=Shelf(sky=[tool]))
        run.more["limits"] = EngineLimits(tool_calls=2)
        output = (await run.run()).output
        assert len(tool.calls) == 2
        assert output["tool_calls"][2]["error"]["code"] == "call_limit"


class TestLimits:
    async def test_after_the_last_iteration_it_answers_without_tools(self) -> None:
        run = bench(wants(ROME), wants(ROME), says("Enough."), max_iterations=2)
        output = (await run.run()).output
        assert (output["stopped_by"], output["answer"], output["iterations"]) == (
            "max_iterations", "Enough.", 3,
        )  # fmt: skip
        assert run.model.requests[2].tool_choice is ToolChoice.NONE
        assert run.model.requests[1].tool_choice is ToolChoice.AUTO

    async def test_a_spent_budget_ends_the_tools(self) -> None:
        run = bench(wants(ROME, tokens=(90, 10)), says("Enough."), token_budget=100)
        assert (await run.run()).output["stopped_by"] == "token_budget"

    @pytest.mark.parametrize(
        ("config", "code"),
        [({"max_iterations": 1}, "iteration_limit"), ({"token_budget": 15}, "token_limit")],
    )
    async def test_or_fails_where_that_is_wanted(self, config: dict[str, Any], code: str) -> None:
        with pytest.raises(RunFailed) as failure:
            await bench(wants(ROME), says("Never."), on_limit="fail", **config).run()
        assert failure.value.code == code

    async def test_a_model_that_calls_tools_all_the_same_fails(self) -> None:
        with pytest.raises(RunFailed) as failure:
            await bench(wants(ROME), max_iterations=1).run()
        assert failure.value.code == "unexpected_tool_calls"

    async def test_more_tools_than_may_be_offered(self) -> None:
        run = bench(says("Never."))
        run.more["limits"] = EngineLimits(offered_tools=0)
        with pytest.raises(RunFailed) as failure:
            await run.run()
        assert failure.value.code == "too_large"


class TestStructured:
    SCHEMA: ClassVar[dict[str, Any]] = {
        "type": "object", "properties": {"sky": {"type": "string"}}, "required": ["sky"],
    }  # fmt: skip

    async def test_the_last_answer_is_read(self) -> None:
        run = bench(wants(ROME), says('{"sky": "clear"}'), output_schema=self.SCHEMA)
        output = (await run.run()).output
        assert output["output"] == {"sky": "clear"}
        assert run.model.requests[1].response_schema == self.SCHEMA

    async def test_is_asked_for_once_more_and_the_first_does_not_count(self) -> None:
        run = bench(says('{"sky": 1}'), says('{"sky": "clear"}'), output_schema=self.SCHEMA)
        output = (await run.run()).output
        assert (output["output"], output["iterations"]) == ({"sky": "clear"}, 2)
        (discarded,) = run.log.custom("message.discarded")
        assert discarded["reason"]["code"] == "invalid_output"
        assert "does not fit" in run.model.requests[1].messages[-1].content

    async def test_fails_where_that_does_not_fit_either(self) -> None:
        with pytest.raises(RunFailed) as failure:
            await bench(says("no"), says("no"), output_schema=self.SCHEMA).run()
        assert failure.value.code == "invalid_output"

    async def test_a_model_without_schemas_is_told_in_words(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ScriptedModel, "capabilities", frozenset({Capability.TOOLS}))
        run = bench(says('{"sky": "clear"}'), output_schema=self.SCHEMA)
        await run.run()
        asked = run.model.requests[0]
        assert asked.response_schema is None
        assert '"sky"' in asked.messages[0].content


class TestCollections:
    async def test_are_searched_and_cited(self) -> None:
        run = bench(
            wants(("search_kb", {"query": "rain"})),
            wants(("search_kb", {"query": "snow"})),
            says("It rains [2], says [4]."),
            shelf=Shelf(), bindings={"collections": {"kb": "handbook"}}, collections=["kb"],
            citations=True, top_k=3, tools=[],
        )  # fmt: skip
        output = (await run.run()).output
        assert [search[1:3] for search in run.shelf.searches] == [("rain", 3), ("snow", 3)]
        assert [(one["index"], one["title"]) for one in output["citations"]] == [
            (2, "Document 2"), (4, "Document 1"),
        ]  # fmt: skip
        assert [one["index"] for one in run.log.custom("citation")] == [2, 4]
        assert run.model.requests[1].messages[-1].content.startswith("[1] Document 1\nPassage 1.")


class TestNames:
    async def test_tools_of_one_name_are_told_apart_by_their_binding(self) -> None:
        kept = Shelf(sky=[Listed([SUNNY])], sea=[Listed([SUNNY])])
        bindings = {"tools": {"sky": "sky", "sea": "sea"}}
        run = bench(
            wants(("sea_weather", {"city": "Rome"})), says("Done."),
            shelf=kept, bindings=bindings, tools=["sky", "sea"],
        )  # fmt: skip
        await run.run()
        assert [tool.name for tool in run.model.requests[0].tools] == ["sky_weather", "sea_weather"]
        assert len(kept.kept["sea"][0].calls) == 1

    def test_are_made_of_what_models_take_and_are_each_there_once(self) -> None:
        names = shown_names([("a", "é!"), ("b", "é!"), ("a", "x" * 80), ("a_", "_"), ("a", "a__")])
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in names)

    async def test_descriptions_of_the_graph_come_first(self) -> None:
        run = bench(says("Hi."), descriptions={"weather": "Ask this before you travel."})
        await run.run()
        assert run.model.requests[0].tools[0].description == "Ask this before you travel."


class TestTold:
    async def test_text_and_calls_as_they_come(self) -> None:
        run = bench(wants(ROME, text="Let me look."), says("Sunny."))
        await run.run()
        told = [name for name in run.log.names if name.startswith(("TEXT", "TOOL"))]
        assert told == [
            "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT",
            "TOOL_CALL_START", "TOOL_CALL_ARGS", "TOOL_CALL_ARGS",
            "TEXT_MESSAGE_END", "TOOL_CALL_END", "TOOL_CALL_RESULT",
            "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT", "TEXT_MESSAGE_END",
        ]  # fmt: skip
        start, result = (
            next(event for event in run.log.events if event.type.value == name)
            for name in ("TOOL_CALL_START", "TOOL_CALL_RESULT")
        )
        texts = [event.message_id for event in run.log.events if event.type.value == "TEXT_MESSAGE_START"]
        assert (start.parent_message_id, result.tool_call_id) == (texts[0], start.tool_call_id)
        assert len(set(texts)) == 2
        pieces = [event.delta for event in run.log.events if event.type.value == "TOOL_CALL_ARGS"]
        assert json.loads("".join(pieces)) == {"city": "Rome"}

    async def test_calls_that_come_as_a_whole(self) -> None:
        run = bench(wants(ROME, pieces=False), says("Sunny."))
        await run.run()
        assert run.log.names.count("TOOL_CALL_ARGS") == 1

    async def test_what_broke_off_is_discarded_with_its_calls(self) -> None:
        broken = [*wants(ROME)[:1], ModelError("server_error", "gone")]
        run = bench(broken, wants(ROME), says("Sunny."), retry={"max_attempts": 2})
        await run.run()
        (discarded,) = run.log.custom("message.discarded")
        started = [event for event in run.log.events if event.type.value == "TOOL_CALL_START"]
        ended = [event.tool_call_id for event in run.log.events if event.type.value == "TOOL_CALL_END"]
        assert discarded["message_id"] == started[0].parent_message_id != started[1].parent_message_id
        assert sorted(ended) == sorted(event.tool_call_id for event in started)


async def test_the_exchange_is_a_history_for_the_next_time() -> None:
    first = bench(wants(ROME), says("Sunny."))
    exchange = (await first.run()).output["messages"]
    assert [message["role"] for message in exchange] == ["user", "assistant", "tool", "assistant"]
    taking = document(history="{{ inputs.before }}")
    taking["inputs"]["properties"]["before"] = {"type": "array", "default": []}
    again = Bench(taking, says("Still sunny."))
    await again.given({"question": "And now?", "before": exchange})
    told = again.model.requests[0].messages
    assert [message.role for message in told] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert told[2].tool_calls[0].name == "weather"


class TestCheck:
    def test_a_model_without_tools_is_told(self) -> None:
        catalog = replace(OFFERING, models={"default-chat": frozenset(Capability) - {Capability.TOOLS}})
        (issue,) = issues(document(bindings=SKY, tools=["sky"]), catalog)
        assert (issue.code, issue.pointer) == ("missing_capability", "/nodes/1/config/model")

    @pytest.mark.parametrize(
        ("config", "code", "pointer"),
        [
            ({"tools": ["sky", "moon"]}, "unbound", "/tools/1"),
            ({"collections": ["kb"]}, "unbound", "/collections/0"),
            ({"agents": ["helper"]}, "unbound", "/agents/0"),
            ({"tools": ["sky"], "approval": ["wether"]}, "unknown_tool", "/approval/0"),
            ({"tools": ["sky"], "descriptions": {"wind": "x"}}, "unknown_tool", "/descriptions/wind"),
            ({"tools": ["sky", "sky"]}, "invalid_value", "/tools/1"),
        ],
    )
    def test_names_that_are_wrong(self, config: dict[str, Any], code: str, pointer: str) -> None:
        (issue,) = issues(document(bindings=SKY, **config), ABLE)
        assert (issue.code, issue.pointer) == (code, f"/nodes/1/config{pointer}")

    @pytest.mark.parametrize("name", ["sky", "weather"])
    def test_names_that_are_right(self, name: str) -> None:
        assert issues(document(bindings=SKY, tools=["sky"], approval=[name]), ABLE) == []

    @pytest.mark.parametrize(
        ("config", "needs"), [({"approval": ["weather"]}, False), ({}, True), ({}, False)]
    )
    def test_who_asks_cannot_be_stored_only_at_the_exit(self, config: dict[str, Any], needs: bool) -> None:
        catalog = replace(ABLE, tools={"sky": [replace(WEATHER, needs_approval=needs)]})
        found = document(bindings=SKY, tools=["sky"], effect="read", **config) | {"durability": "exit"}
        wanted = ["no_lasting_wait"] if needs or config else []
        assert [issue.code for issue in issues(found, catalog)] == wanted
