"""Graphs inside of nodes: `map`, `loop`, `subagent`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from app.agent.core.base import NodeTypes
from app.agent.core.interfaces import ModelError
from app.agent.core.limits import EngineLimits
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.plan import Plan
from app.agent.graph.ports import RunFailed
from tests.agent.documents import end, graph, issues, llm, node, only, text
from tests.agent.doubles import COMPILER, TYPES, Bench, Log, says

ITEMS = {"type": "object", "properties": {"items": {"type": "array"}}, "required": ["items"]}


def inner(*nodes: Mapping[str, Any], edges: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """A graph inside of a node; by default its nodes are one line."""
    whole = graph(*nodes, edges=edges or line(nodes))
    return {key: whole[key] for key in ("nodes", "edges")} | more


def line(nodes: Any) -> list[str]:
    names = ["start", *(each["id"] for each in nodes)]
    return [f"{one} > {other}" for one, other in pairwise(names)]


def mapping(*nodes: Mapping[str, Any], output: Any = "{{ each.results }}", **config: Any) -> dict[str, Any]:
    body = {"items": "{{ inputs.items }}", "graph": inner(*nodes), **config}
    parts = [node("each", "map", body), end(results=output, errors="{{ each.errors }}")]
    return graph(*parts, edges=line(parts), inputs=ITEMS)


def looping(*nodes: Mapping[str, Any], **config: Any) -> dict[str, Any]:
    body = {"graph": inner(*nodes), **config}
    out = end(last="{{ again.last }}", rounds="{{ again.rounds }}", exhausted="{{ again.exhausted }}")
    parts = [node("again", "loop", body), out]
    return graph(*parts, edges=line(parts))


PICKING = inner(
    node("p", "pick", {"take": "{{ item }}"}),
    end(took="{{ p.picked }}"),
    edges=["start > p", "p.yes > done", "p.no > done"],
)
ECHO = (text("echo", "{{ loop.index }}: {{ item.name }}"), end(text="{{ echo.text }}"))


class TestMap:
    async def test_results_keep_the_order_of_the_items(self) -> None:
        nap = (node("nap", "nap", {"seconds": 0}), *ECHO)
        bench = Bench(mapping(*nap, concurrency=3))
        items = [{"name": name} for name in "abcdefg"]
        result = await bench.given({"items": items})
        assert [one["text"] for one in result.output["results"]] == [
            f"{index}: {name}" for index, name in enumerate("abcdefg")
        ]

    async def test_nodes_inside_have_paths_of_their_own(self) -> None:
        bench = Bench(mapping(*ECHO))
        await bench.given({"items": [{"name": "a"}, {"name": "b"}]})
        told = [path for path, event in bench.log.entries if path.startswith("each/")]
        assert {"each/0/echo", "each/1/echo", "each/1/done"} <= set(told)

    async def test_at_most_so_many_at_once(self) -> None:
        busy, most = 0, 0

        async def act(config: Any, scope: Any) -> dict[str, Any]:
            nonlocal busy, most
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0.001)
            busy -= 1
            return {"text": ""}

        types = NodeTypes([*(t for t in TYPES.values() if t.name != "nap"), replace(TYPES["nap"], run=act)])
        document = mapping(node("nap", "nap"), end(), concurrency=4)
        await Bench(document, compiler=AgentCompiler(types)).given({"items": list(range(20))})
        assert most == 4

    async def test_an_item_that_fails_fails_the_node(self) -> None:
        document = mapping(end())
        document["nodes"][1]["config"]["graph"] = PICKING
        bench = Bench(document)
        with pytest.raises(RunFailed, match="item 1: told to fail") as failure:
            await bench.given({"items": ["yes", "fail", "yes"]})
        assert (failure.value.node_id, failure.value.code) == ("each", "told")

    async def test_collected_errors_leave_the_others_their_results(self) -> None:
        document = mapping(end(), on_item_error="collect")
        document["nodes"][1]["config"]["graph"] = PICKING
        result = await Bench(document).given({"items": ["yes", "fail", "no"]})
        assert result.output["results"] == [{"took": "yes"}, None, {"took": "no"}]
        assert result.output["errors"] == [{"index": 1, "code": "told", "message": "told to fail"}]

    async def test_no_items_no_results(self) -> None:
        assert (await Bench(mapping(*ECHO)).given({"items": []})).output["results"] == []

    @pytest.mark.parametrize(
        ("most", "limits"), [({"max_items": 2}, EngineLimits()), ({}, EngineLimits(map_items=2))]
    )
    async def test_too_many_items(self, most: dict[str, int], limits: EngineLimits) -> None:
        bench = Bench(mapping(*ECHO, **most), limits=limits)
        with pytest.raises(RunFailed, match="3 items; at most 2") as failure:
            await bench.given({"items": [{"name": "x"}] * 3})
        assert failure.value.code == "too_large"

    async def test_text_inside_is_not_shown(self) -> None:
        document = mapping(llm("write", "{{ item }}"), end(text="{{ write.text }}"))
        document["interface"] = {"answer": "results"}
        bench = Bench(document, says("Hi."))
        await bench.given({"items": ["a", "b"]})
        assert bench.log.names.count("TEXT_MESSAGE_START") == 1  # the composed answer at the end

    async def test_usage_is_that_of_all_items(self) -> None:
        bench = Bench(mapping(llm("write", "{{ item }}"), end(text="{{ write.text }}")))
        result = await bench.given({"items": ["a", "b", "c"]})
        assert (result.usage.input_tokens, result.usage.output_tokens) == (9, 6)

    async def test_maps_in_maps(self) -> None:
        cell = {"items": "{{ item }}", "graph": inner(text("t", "<{{ item }}>"), end(t="{{ t.text }}"))}
        document = mapping(node("row", "map", cell), end(row="{{ row.results }}"))
        result = await Bench(document).given({"items": [["a", "b"], ["c"]]})
        assert result.output["results"] == [
            {"row": [{"t": "<a>"}, {"t": "<b>"}]},
            {"row": [{"t": "<c>"}]},
        ]

    async def test_inputs_are_handed_in(self) -> None:
        document = mapping(
            text("t", "{{ inputs.greeting }} {{ item }}"), end(t="{{ t.text }}"),
            inputs={"greeting": "Hello"},
        )  # fmt: skip
        result = await Bench(document).given({"items": ["Ann"]})
        assert result.output["results"] == [{"t": "Hello Ann"}]

    async def test_a_second_attempt_does_again_only_what_failed(self) -> None:
        pick = (llm("write", "{{ item }}"), end(text="{{ write.text }}"))
        document = mapping(*pick, concurrency=1)
        document["nodes"][1]["retry"] = {"max_attempts": 2, "on": ["server_error"]}
        script = (says("one"), [ModelError("server_error", "down")], says("two"))
        bench = Bench(document, *script)
        result = await bench.given({"items": ["a", "b"]})
        assert [one["text"] for one in result.output["results"]] == ["one", "two"]
        assert len(bench.model.requests) == 3


class TestLoop:
    async def test_goes_on_while_the_expression_holds(self) -> None:
        more = (text("more", "{{ loop.previous.text }}!"), end(text="{{ more.text }}"))
        bench = Bench(
            looping(*more, repeat_while="len({{ loop.previous.text }}) < 5", initial={"text": "Hi"})
        )
        result = await bench.run()
        assert result.output == {"last": {"text": "Hi!!!"}, "rounds": 3, "exhausted": False}

    async def test_no_round_at_all(self) -> None:
        bench = Bench(looping(end(), repeat_while="{{ loop.index }} > 0", initial="as it was"))
        assert (await bench.run()).output == {"last": "as it was", "rounds": 0, "exhausted": False}

    async def test_too_many_rounds_fail(self) -> None:
        with pytest.raises(RunFailed, match="still holds after 3 rounds") as failure:
            await Bench(looping(end(), repeat_while="True", max_rounds=3)).run()
        assert failure.value.code == "loop_limit"

    async def test_or_stop_there(self) -> None:
        bench = Bench(looping(end(n="{{ loop.index }}"), repeat_while="True", max_rounds=3, on_limit="stop"))
        assert (await bench.run()).output == {"last": {"n": 2}, "rounds": 3, "exhausted": True}

    async def test_what_is_not_a_boolean_is_an_error(self) -> None:
        bench = Bench(looping(end(), repeat_while="{{ loop.previous }}", initial=1))
        with pytest.raises(RunFailed, match="gives integer, not true or false"):
            await bench.run()


class Team:
    """Published agents, in memory."""

    def __init__(self, **documents: dict[str, Any]) -> None:
        self.plans: dict[str, Plan] = {name: COMPILER.compile(it) for name, it in documents.items()}

    async def plan(self, reference: str) -> Plan:
        return self.plans[reference]


def calling(target: str = "helper", **inputs: Any) -> dict[str, Any]:
    ask = node(
        "ask",
        "subagent",
        {"agent": "helper", "inputs": {"question": "{{ inputs.question }}", **inputs}},
    )
    parts = [ask, end(answer="{{ ask.answer }}", output="{{ ask.output }}")]
    bindings = {"agents": {"helper": target}, "models": {"main": "default-chat"}}
    interface = {"message": "question", "answer": "answer"}
    return graph(*parts, edges=line(parts), bindings=bindings, interface=interface)


HELPER = graph(
    llm("write"),
    end(answer="{{ write.text }}", asked="{{ inputs.question }}"),
    edges=["start > write", "write > done"],
    interface={"message": "question", "answer": "answer"},
)


class TestSubagent:
    async def test_gives_output_and_answer(self) -> None:
        bench = Bench(calling(), says("It ", "is."), agents=Team(helper=HELPER))
        result = await bench.run()
        assert result.output == {"answer": "It is.", "output": {"answer": "It is.", "asked": "Why?"}}

    async def test_its_answer_is_shown_as_it_comes(self) -> None:
        bench = Bench(calling(), says("It ", "is."), agents=Team(helper=HELPER))
        await bench.run()
        assert bench.log.text == "It is."
        assert ("ask/write", "TEXT_MESSAGE_CONTENT") in [
            (path, event.type.value) for path, event in bench.log.entries if hasattr(event, "delta")
        ]

    async def test_a_composed_answer_is_shown_once(self) -> None:
        composed = graph(
            end(answer="You asked: {{ inputs.question }}"), edges=["start > done"],
            interface={"answer": "answer"},
        )  # fmt: skip
        bench = Bench(calling(), agents=Team(helper=composed))
        await bench.run()
        assert bench.log.text == "You asked: Why?"

    async def test_inputs_must_fit(self) -> None:
        bench = Bench(calling(language=7), agents=Team(helper=HELPER))
        with pytest.raises(RunFailed, match=r"do not fit the agent.*/language") as failure:
            await bench.run()
        assert failure.value.code == "invalid_input"

    async def test_only_so_deep(self) -> None:
        bench = Bench(calling(), agents=Team(helper=calling()), limits=EngineLimits(agent_depth=3))
        with pytest.raises(RunFailed, match="more than 3 deep") as failure:
            await bench.run()
        assert failure.value.code == "too_deep"


class TestChecks:
    def test_only_what_is_handed_in_can_be_read_inside(self) -> None:
        for reference in ("state.x", "session.id"):
            issue = only(mapping(text("t", f"{{{{ {reference} }}}}"), end()))
            assert issue.code == "unknown_reference"
            assert "cannot be read inside of a 'map' node" in issue.message
            assert (issue.node_id, issue.pointer) == ("each/t", "/nodes/1/config/graph/nodes/1/config/text")

    def test_outer_nodes_cannot_be_read_inside(self) -> None:
        issue = only(mapping(text("t", "{{ each.results }}"), end()))
        assert (issue.code, issue.node_id) == ("unknown_reference", "each/t")

    def test_item_and_loop_only_inside(self) -> None:
        (issue,) = issues(graph(text("t", "{{ item.x }}"), end(), edges=["start > t", "t > done"]))
        assert issue.message == "'item.x': 'item' exists only inside of a 'map' node"

    def test_every_check_is_made_inside(self) -> None:
        document = mapping(text("t", "{{ item }}"), node("odd", "tempate"), end())
        found = {(issue.code, issue.node_id) for issue in issues(document)}
        assert ("unknown_node_type", "each/odd") in found

    def test_inputs_that_the_graph_requires(self) -> None:
        schema = {"type": "object", "properties": {"a": {}, "b": {}}, "required": ["a"]}
        document = mapping(end(), inputs={"c": 1})
        document["nodes"][1]["config"]["graph"]["inputs"] = schema
        assert [issue.code for issue in issues(document)] == ["missing_key", "unknown_input"]

    def test_unknown_keys_of_the_graph(self) -> None:
        document = mapping(end())
        document["nodes"][1]["config"]["graph"]["stat"] = {}
        issue = only(document)
        assert (issue.code, issue.pointer) == ("unknown_key", "/nodes/1/config/graph/stat")

    def test_a_mistake_of_the_node_is_none_of_the_graph(self) -> None:
        document = looping(text("echo", "{{ loop.index }}"), end(), repeat_while="false")
        assert [issue.code for issue in issues(document)] == ["invalid_expression"]

    def test_models_inside_are_bound(self) -> None:
        issue = only(mapping(llm("write", "x", model="other"), end()))
        assert (issue.code, issue.node_id) == ("unbound", "each/write")

    def test_an_effect_inside_is_one_of_the_node(self) -> None:
        request = node("send", "http", {"url": "https://a.example", "method": "POST"})
        document = mapping(request, end()) | {"durability": "exit"}
        assert [issue.code for issue in issues(document)] == ["lasting_effect"]


async def test_what_was_done_inside_is_not_done_again() -> None:
    document = mapping(llm("write", "{{ item }}"), end(text="{{ write.text }}"))
    first = Bench(document, says("Hi."))
    await first.given({"items": ["a", "b"]})
    again = Bench(document, says("Other."))
    again.log = Log(*(step for step in first.log.steps if step.node_path == "each/0/write"))
    result = await again.given({"items": ["a", "b"]})
    assert [one["text"] for one in result.output["results"]] == ["Hi.", "Other."]


class TestTypes:
    """What a graph inside gives is known around it."""

    NAMED = (text("greet", "Hello, {{ item }}!"), end(text="{{ greet.text }}", of={"item": "{{ item }}"}))

    @pytest.mark.parametrize(
        ("read", "fix"),
        [("each.results.0.txt", "did you mean 'text'?"), ("each.results.0.of.itm", "did you mean 'item'?")],
    )
    def test_of_the_results_of_a_map(self, read: str, fix: str) -> None:
        issue = only(mapping(*self.NAMED, output=f"{{{{ {read} }}}}"))
        assert (issue.code, issue.pointer) == ("unknown_output", "/nodes/2/config/output/results")
        assert issue.fix.startswith(fix)

    @pytest.mark.parametrize(
        "read", ["each.results.0.text", "each.results.0.of.item.anything", "each.results"]
    )
    def test_of_what_is_there(self, read: str) -> None:
        assert issues(mapping(*self.NAMED, output=f"{{{{ {read} }}}}")) == []

    def test_of_the_last_round_of_a_loop(self) -> None:
        document = looping(
            text("echo", "{{ loop.index }}"), end(text="{{ echo.text }}"), repeat_while="False"
        )
        document["nodes"][2]["config"]["output"]["last"] = "{{ again.last.txt }}"
        assert only(document).code == "unknown_output"
        document["nodes"][1]["config"]["initial"] = {"txt": "none yet"}
        assert issues(document) == []

    def test_do_not_fit_what_takes_something_else(self) -> None:
        document = mapping(*self.NAMED)
        document["nodes"].insert(2, node("pick", "transform", {"values": {"n": "{{ each.results }} < 3"}}))
        document["edges"] = graph(edges=["start > each", "each > pick", "pick > done"])["edges"]
        assert only(document).code == "type_mismatch"

    def test_of_several_ends_are_those_of_any(self) -> None:
        body = inner(
            node("which", "condition", {"branches": [{"handle": "a", "when": "{{ item }} == 1"}]}),
            end("one", text="a"), end("other", number=1),
            edges=["start > which", "which.a > one", "which.else > other"],
        )  # fmt: skip
        document = mapping(end())
        document["nodes"][1]["config"]["graph"] = body
        for name, expected in (("text", []), ("number", []), ("txt", ["unknown_output"])):
            document["nodes"][2]["config"]["output"]["results"] = f"{{{{ each.results.0.{name} }}}}"
            assert [issue.code for issue in issues(document)] == expected

    def test_are_not_held_against_a_default_of_the_node(self) -> None:
        document = mapping(*self.NAMED, output="{{ each.results.0.reason }}")
        document["nodes"][1]["on_error"] = {"default": {"results": [{"reason": "none"}], "errors": []}}
        assert issues(document) == []
