"""The compiler: what it reports, and what it plans. `tests/agent` has the checks one by one."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph, IssueCode
from app.agent.graph.loading import load_graph
from app.agent.workflows.simple_rag import simple_rag
from tests.agent.documents import (
    ANSWER,
    CATALOG,
    end,
    full,
    graph,
    issues,
    line,
    llm,
    node,
    only,
    text,
)
from tests.agent.doubles import COMPILER

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"


class TestValidDocuments:
    def test_every_node_type_together(self) -> None:
        assert issues(full()) == []

    @pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
    def test_examples(self, path: Path) -> None:
        assert AgentCompiler().check(load_graph(path.read_text()), CATALOG).issues == []

    def test_simple_rag(self) -> None:
        assert AgentCompiler().check(simple_rag("handbook"), CATALOG).issues == []

    def test_a_graph_and_its_document_are_checked_alike(self) -> None:
        rag = simple_rag("nowhere")
        assert issues(rag, CATALOG) == issues(rag.document(), CATALOG) != []


class TestReport:
    def test_finds_everything_at_once_in_document_order(self) -> None:
        document = full()
        document["interface"]["answer"] = "answr"
        document["bindings"]["models"] = {"mian": "default-chat"}
        document["nodes"][1]["config"]["topk"] = 3
        document["nodes"][2]["config"]["context"] = "{{ serch.results }}"
        document["nodes"][2]["timeout_s"] = -1
        document["nodes"][3]["config"]["text"] = "{{ write.error.mesage }}"
        document["nodes"].append(node("extra", "lm"))
        document["edges"][0]["target"] = "serch"
        document["edges"][3]["handle"] = "eror"
        document["colour"] = "red"
        assert [(issue.code, issue.pointer) for issue in issues(document)] == [
            ("unknown_key", "/nodes/1/config/topk"),
            ("unbound", "/nodes/2/config/model"),
            ("unknown_reference", "/nodes/2/config/context"),
            ("out_of_range", "/nodes/2/timeout_s"),
            ("unknown_output", "/nodes/3/config/text"),
            ("unreachable_node", "/nodes/5"),
            ("unknown_node_type", "/nodes/5/type"),
            ("dangling_edge", "/edges/0/target"),
            ("unknown_handle", "/edges/3/handle"),
            ("unknown_answer", "/interface/answer"),
            ("unknown_key", "/colour"),
        ]

    def test_each_finding_names_its_node(self) -> None:
        assert only(line(llm("write", "{{ nobody.text }}"))).node_id == "write"

    def test_messages_quote_the_value_and_suggest_the_nearest(self) -> None:
        issue = only(line(llm("write", "{{ inputs.qestion }}")))
        assert "'qestion'" in issue.message
        assert issue.fix == "did you mean 'question'? valid: 'question', 'language'"

    def test_a_key_with_a_slash_is_escaped_in_the_pointer(self) -> None:
        assert only(full() | {"a/b~c": 1}).pointer == "/a~1b~0c"

    def test_every_code_has_a_description(self) -> None:
        assert all(code.description.endswith(".") for code in IssueCode)

    def test_an_invalid_graph_carries_the_report_as_fields(self) -> None:
        with pytest.raises(InvalidGraph) as failure:
            COMPILER.compile(line(llm("write", "{{ nobody.text }}")))
        assert [error.pointer for error in failure.value.errors] == ["/nodes/1/config/prompt/0/content"]
        assert failure.value.status == 422


def steps_of(document: dict[str, Any]) -> list[list[str]]:
    return [[part.id for part in step.nodes] for step in COMPILER.compile(document).steps]


class TestPlan:
    def test_a_chain_of_pure_nodes_is_one_step(self) -> None:
        document = line(text("a", "x"), text("b", "{{ a.text }}"), output="{{ b.text }}")
        assert steps_of(document) == [["start", "a", "b", "done"]]

    def test_a_step_of_a_line_has_one_effectful_node(self) -> None:
        document = line(text("a", "x"), llm("b", "x"), text("c", "x"), llm("d", "x"), output="{{ d.text }}")
        assert steps_of(document) == [["start", "a", "b", "c"], ["d", "done"]]

    def test_what_runs_side_by_side_is_one_step(self) -> None:
        document = graph(
            llm("before"),
            llm("a1"),
            llm("a2"),
            llm("b"),
            llm("after"),
            end(answer="{{ after.text }}"),
            edges=[
                "start > before", "before > a1", "before > b", "a1 > a2", "a2 > after", "b > after",
                "after > done",
            ],
        )  # fmt: skip
        assert steps_of(document) == [["start", "before"], ["a1", "a2", "b"], ["after", "done"]]

    def test_what_may_run_beside_an_end_is_one_step_with_it(self) -> None:
        document = graph(
            llm("before"),
            node("p", "pick", {"take": "no", "choices": ["yes", "no"]}),
            end("early", answer="x"),
            llm("a"),
            llm("b"),
            end("late", answer="x"),
            edges=["start > before", "before > p", "p.yes > early", "p.no > a", "a > b", "b > late"],
        )
        assert steps_of(document) == [["start", "before", "p"], ["early", "a", "b", "late"]]

    def test_the_model_whose_text_is_the_answer_speaks(self) -> None:
        assert COMPILER.compile(full()).answering == ("write",)

    def test_without_an_interface_nobody_speaks(self) -> None:
        document = full()
        del document["interface"]
        assert COMPILER.compile(document).answering == ()

    def test_a_model_inside_a_longer_answer_does_not_speak(self) -> None:
        document = line(llm("write"), output="Answer: {{ write.text }}", **ANSWER)
        assert COMPILER.compile(document).answering == ()

    def test_a_fallback_model_speaks_too(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            end(answer="{{ a.text ?? b.text }}"),
            edges=["start > a", "a > done", "a.error > b", "b > done"],
            **ANSWER,
        )
        assert COMPILER.compile(document).answering == ("a", "b")

    def test_of_two_parallel_models_only_the_preferred_one_speaks(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            end(answer="{{ a.text ?? b.text }}"),
            edges=["start > a", "start > b", "a > done", "b > done"],
            **ANSWER,
        )
        assert COMPILER.compile(document).answering == ("a",)

    def test_a_model_whose_text_may_be_overruled_waits(self) -> None:
        document = graph(
            llm("draft"),
            llm("polish", "{{ draft.text }}"),
            end("good", answer="{{ polish.text }}"),
            end("rough", answer="{{ draft.text }}"),
            edges=["start > draft", "draft > polish", "polish > good", "polish.error > rough"],
            **ANSWER,
        )
        assert COMPILER.compile(document).answering == ("polish",)

    def test_the_same_document_gives_the_same_order(self) -> None:
        orders = [steps_of(full()) for _ in range(3)]
        assert orders[0] == orders[1] == orders[2] == [["start", "search"], ["write", "apology", "done"]]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
HOSTILE = st.one_of(
    JSON,
    st.sampled_from(
        [
            "{{", "{{ a }}", "{{ write.text ?? 1 }}", "{{ inputs }}", "{{ start }}", "{{ done.x }}", "search",
            "error", "any", "out", {"$ref": "#"}, {"default": {"text": 1}}, [[]], {"type": []}, "write", -1,
        ]
    ),
)  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, item in items for place in places(item, (*path, key)))]


class TestAnyInput:
    @given(JSON)
    @settings(deadline=None, max_examples=75)
    def test_any_json_gets_a_report(self, document: Any) -> None:
        assert not COMPILER.check(document).valid

    @given(st.data())
    @settings(deadline=None, max_examples=150)
    def test_a_damaged_document_gets_a_report_or_compiles(self, data: st.DataObject) -> None:
        document = copy.deepcopy(full())
        for _ in range(data.draw(st.integers(1, 4))):
            *path, key = data.draw(st.sampled_from([place for place in places(document) if place]))
            target: Any = document
            for step in path:
                target = target[step]
            if data.draw(st.booleans()):
                target[key] = copy.deepcopy(data.draw(HOSTILE))  # the samples are shared
            elif len(document) > 1 or path:
                del target[key]
            if isinstance(target, list) and target and data.draw(st.booleans()):
                target.append(target[0])
        report = COMPILER.check(document)
        for issue in report.issues:
            assert resolves(document, issue.pointer), issue
        if report.valid:
            COMPILER.compile(document)

    @given(JSON)
    @settings(deadline=None, max_examples=50)
    def test_any_text_loads_or_says_why(self, document: Any) -> None:
        with pytest.raises(InvalidGraph):
            load_graph(json.dumps(document))


def resolves(document: Any, pointer: str) -> bool:
    for token in pointer.split("/")[1:]:
        key = token.replace("~1", "/").replace("~0", "~")
        if isinstance(document, list):
            document = document[int(key)]
        elif key in document:
            document = document[key]
        else:
            return False
    return True
