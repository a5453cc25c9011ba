"""The compiler: what it finds in a document, and what it plans."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.core.base import NODE_TYPES, NodeTypes, node_type
from app.agent.core.interfaces import Capability, Catalog
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph, IssueCode
from app.agent.graph.limits import MAX_EDGES, MAX_ENDS, MAX_NODES, MAX_TEXT
from app.agent.graph.loading import load_document, load_graph
from app.agent.workflows.simple_rag import simple_rag
from app.core.report import Issue, Severity
from tests.agent.doubles import ANSWER, COMPILER, CallerConfig, caller, end, graph, llm, node, text

EXAMPLES = Path(__file__).parents[2] / "examples" / "agents"


def full() -> dict[str, Any]:
    """Every node type, a branch on failure, a join."""
    return graph(
        node("search", "retrieve", {"collection": "kb", "query": "{{ inputs.question }}"}),
        llm("write", context="{{ search.results }}", citations=True),
        text("apology", "No model: {{ write.error.message }}"),
        end(answer="{{ write.text ?? apology.text }}", sources="{{ write.citations ?? [] }}"),
        edges=["start > search", "search > write", "write > done", "write.error > apology", "apology > done"],
        **ANSWER,
    )


def issues(document: Any, catalog: Catalog | None = None) -> list[Issue]:
    return COMPILER.check(document, catalog).issues


def codes(document: Any) -> list[str]:
    return [issue.code for issue in issues(document)]


def only(document: Any, catalog: Catalog | None = None) -> Issue:
    found = issues(document, catalog)
    assert len(found) == 1, found
    return found[0]


def line(*middle: dict[str, Any], output: Any = "{{ inputs.question }}", **more: Any) -> dict[str, Any]:
    """start → middle… → done."""
    ids = ["start", *(part["id"] for part in middle), "done"]
    edges = [f"{a} > {b}" for a, b in pairwise(ids)]
    return graph(*middle, end(answer=output), edges=edges, **more)


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


class TestShape:
    @pytest.mark.parametrize("document", [None, 3, "text", [], True])
    def test_what_is_no_object(self, document: Any) -> None:
        assert only(document).code == "wrong_type"

    def test_an_empty_object_lacks_version_and_nodes(self) -> None:
        assert codes({}) == ["missing_key", "missing_key"]

    @pytest.mark.parametrize(
        ("key", "value"), [("inputs", []), ("state", 1), ("bindings", []), ("layout", 1), ("edges", {})]
    )
    def test_sections_of_the_wrong_type(self, key: str, value: Any) -> None:
        assert ("wrong_type", f"/{key}") in [(i.code, i.pointer) for i in issues(full() | {key: value})]

    def test_another_version(self) -> None:
        assert only(full() | {"schema_version": 1}).code == "invalid_value"

    def test_a_misspelt_policy_key(self) -> None:
        issue = only(line(llm("write") | {"timout_s": 3}))
        assert (issue.code, issue.pointer) == ("unknown_key", "/nodes/1/timout_s")
        assert "did you mean 'timeout_s'?" in issue.fix

    def test_a_misspelt_key_deep_inside(self) -> None:
        document = line(llm("write"))
        document["nodes"][1]["config"]["prompt"][0]["rol"] = "user"
        assert "did you mean 'role'?" in only(document).fix

    def test_cache_is_not_offered(self) -> None:
        assert only(line(llm("write") | {"cache": {"ttl_s": 3}})).code == "unsupported_key"

    def test_a_missing_key_points_at_the_object_that_lacks_it(self) -> None:
        issue = only(line(node("say", "template")))
        assert (issue.code, issue.pointer) == ("missing_key", "/nodes/1/config")

    def test_a_number_as_text_is_not_a_number(self) -> None:
        search = node("search", "retrieve", {"collection": "kb", "query": "x", "top_k": "6"})
        assert only(line(search)).code == "wrong_type"

    def test_a_number_out_of_range(self) -> None:
        search = node("search", "retrieve", {"collection": "kb", "query": "x", "top_k": 201})
        assert only(line(search)).code == "out_of_range"

    def test_an_id_with_a_capital(self) -> None:
        assert only(line(text("Hi", "x"))).pointer == "/nodes/1/id"

    @pytest.mark.parametrize("name", ["inputs", "state", "session", "item", "loop", "null"])
    def test_reserved_ids(self, name: str) -> None:
        assert only(line(text(name, "x"))).code == "reserved_id"

    def test_duplicate_ids(self) -> None:
        document = line(text("say", "x"))
        document["nodes"].append(text("say", "y"))
        assert only(document).code == "duplicate_id"

    def test_a_reference_that_does_not_parse_gives_its_position(self) -> None:
        issue = only(line(text("say", "Dear {{ inputs. }}")))
        assert issue.code == "invalid_reference"
        assert "character 15" in issue.message

    def test_a_reference_deep_in_an_output_points_at_its_place(self) -> None:
        document = line(output={"a": ["x", "{{ 1 }}"]})
        assert only(document).pointer == "/nodes/1/config/output/answer/a/1"

    def test_nothing_hides_in_a_node_with_another_mistake(self) -> None:
        document = line(text("say", "{{ nobody.text }}") | {"extra": 1})
        assert codes(document) == ["unknown_reference", "unknown_key"]


class TestSize:
    def test_too_many_nodes(self) -> None:
        document = full()
        document["nodes"] += [text(f"n{i}", "x") for i in range(MAX_NODES)]
        assert "too_many_nodes" in codes(document)

    def test_too_many_edges(self) -> None:
        document = full()
        document["edges"] += [{"source": "start", "target": "done"}] * MAX_EDGES
        assert "too_many_edges" in codes(document)

    def test_too_many_edges_from_one_node(self) -> None:
        many = [text(f"n{i}", "x") for i in range(300)]
        edges = [f"start > n{i}" for i in range(300)] + [f"n{i} > done" for i in range(300)]
        issue = only(graph(*many, end(answer="x"), edges=edges))
        assert (issue.code, issue.node_id) == ("too_many_edges", "start")

    def test_too_many_ends(self) -> None:
        ends = [end(f"e{i}", answer="x") for i in range(MAX_ENDS + 1)]
        assert "too_many_nodes" in codes(graph(*ends, edges=["start > e0"]))

    def test_too_much_text(self) -> None:
        assert only(line(text("say", "x" * (MAX_TEXT + 1)))).code == "too_large"

    def test_too_deep(self) -> None:
        deep: Any = 1
        for _ in range(50_000):
            deep = [deep]
        assert only(full() | {"layout": deep}).code == "too_deep"

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", {1: 2}, b"x"])
    def test_what_json_cannot_carry(self, value: Any) -> None:
        assert "not_json" in codes(full() | {"layout": {"a": value}})


class TestStructure:
    def test_no_start(self) -> None:
        document = full()
        document["nodes"].pop(0)
        document["edges"].pop(0)
        assert only(document).code == "missing_start"

    def test_two_starts(self) -> None:
        document = line(text("say", "x"))
        document["nodes"].append({"id": "again", "type": "start"})
        document["edges"].append({"source": "again", "target": "say"})
        assert only(document).code == "duplicate_start"

    def test_no_end(self) -> None:
        assert only(graph(text("say", "x"), edges=["start > say"])).code == "missing_end"

    def test_a_dangling_edge_is_one_finding(self) -> None:
        document = line(text("say", "x"))
        document["edges"][0]["target"] = "sya"
        issue = only(document)
        assert (issue.code, issue.pointer) == ("dangling_edge", "/edges/0/target")

    def test_a_handle_of_another_node_type(self) -> None:
        document = line(text("say", "x"))
        document["edges"][1]["handle"] = "yes"
        issue = next(issue for issue in issues(document) if issue.code == "unknown_handle")
        assert issue.fix == "valid: 'out', 'error'"

    def test_an_edge_out_of_an_end(self) -> None:
        document = line(text("say", "x"))
        document["edges"].append({"source": "done", "target": "say"})
        assert only(document).code == "unknown_handle"

    def test_an_edge_into_the_start(self) -> None:
        document = full()
        document["edges"].append({"source": "write", "target": "start"})
        assert "edge_into_start" in codes(document)

    def test_the_same_edge_twice(self) -> None:
        document = line(text("say", "x"))
        document["edges"].append(document["edges"][0])
        assert only(document).code == "duplicate_edge"

    def test_two_edges_by_different_handles_are_different(self) -> None:
        assert issues(graph(llm("a"), end(), edges=["start > a", "a > done", "a.error > done"])) == []

    def test_a_node_that_nothing_reaches(self) -> None:
        document = line(text("say", "x"))
        document["nodes"].append(text("alone", "x"))
        document["edges"].append({"source": "alone", "target": "done"})
        assert [(i.code, i.node_id) for i in issues(document)] == [("unreachable_node", "alone")]

    def test_a_dead_end(self) -> None:
        document = line(text("say", "x"))
        document["nodes"].append(text("aside", "x"))
        document["edges"].append({"source": "start", "target": "aside"})
        assert [(i.code, i.node_id) for i in issues(document)] == [("no_path_to_end", "aside")]

    def test_success_that_leads_nowhere(self) -> None:
        issue = only(graph(llm("a"), end(), edges=["start > a", "a.error > done"]))
        assert (issue.code, "'out'" in issue.message) == ("no_path_to_end", True)

    def test_a_cycle_is_spelt_out(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            end(),
            edges=["start > a", "a > b", "b.error > a", "b > done"],
        )
        issue = only(document)
        assert (issue.code, "a → b → a" in issue.message) == ("cycle", True)

    def test_a_node_that_follows_itself(self) -> None:
        assert only(graph(llm("a"), end(), edges=["start > a", "a > a", "a > done"])).code == "cycle"

    def test_two_ends_in_one_run(self) -> None:
        issue = only(graph(end("one"), end("two"), edges=["start > one", "start > two"]))
        assert (issue.code, issue.node_id) == ("multiple_ends", "two")

    def test_ends_on_exclusive_branches(self) -> None:
        document = graph(llm("a"), end("good"), end("bad"), edges=["start > a", "a > good", "a.error > bad"])
        assert issues(document) == []

    def test_ends_behind_different_choices_of_one_node_after_a_join(self) -> None:
        document = graph(
            node("p", "pick", {"take": "yes"}),
            text("a", "x"),
            text("b", "x"),
            end("one"),
            end("two"),
            edges=["start > p", "p.yes > a", "p.no > b", "a > one", "b > two", "p.yes > b"],
        )
        assert only(document).code == "multiple_ends"


class TestReferences:
    def test_an_unknown_node(self) -> None:
        issue = only(line(llm("write"), output="{{ wriet.text }}"))
        assert (issue.code, "did you mean 'write'?" in issue.fix) == ("unknown_reference", True)

    def test_an_unknown_output(self) -> None:
        assert only(line(llm("write"), output="{{ write.txt }}")).code == "unknown_output"

    def test_a_field_that_an_output_does_not_have(self) -> None:
        issue = only(line(llm("write"), output="{{ write.usage.tokens }}"))
        assert "'input_tokens', 'output_tokens'" in issue.fix

    def test_a_path_into_text(self) -> None:
        assert only(line(llm("write"), output="{{ write.text.length }}")).code == "unknown_output"

    def test_a_path_into_a_list(self) -> None:
        search = node("search", "retrieve", {"collection": "kb", "query": "x"})
        assert issues(line(search, output="{{ search.results.0.title }}")) == []

    def test_start_has_no_outputs(self) -> None:
        assert only(line(output="{{ start.question }}")).fix == "read an input as 'inputs.<name>'"

    def test_item_exists_only_inside_map(self) -> None:
        assert only(line(output="{{ item.text }}")).code == "unknown_reference"

    def test_the_session(self) -> None:
        assert issues(line(output="{{ session.messages }} {{ session.variables.name }}")) == []

    def test_a_node_that_runs_later(self) -> None:
        assert only(line(llm("a", "{{ b.text }}"), llm("b"))).code == "not_yet_run"

    def test_itself(self) -> None:
        assert only(line(llm("a", "{{ a.text }}"))).code == "not_yet_run"

    def test_a_parallel_node(self) -> None:
        document = graph(
            llm("a"),
            llm("b", "{{ a.text }}"),
            end(),
            edges=["start > a", "start > b", "a > done", "b > done"],
        )
        assert only(document).code == "not_yet_run"

    def test_both_branches_of_a_fan_out_are_set_at_the_join(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            end(answer="{{ a.text }} {{ b.text }}"),
            edges=["start > a", "start > b", "a > done", "b > done"],
        )
        assert issues(document) == []

    def test_one_branch_of_a_choice_may_be_unset_at_the_join(self) -> None:
        document = full()
        document["nodes"][4]["config"]["output"]["answer"] = "{{ write.text }}"
        assert only(document).code == "maybe_unset"

    def test_a_literal_makes_it_set(self) -> None:
        document = full()
        document["nodes"][4]["config"]["output"]["answer"] = '{{ write.text ?? "none" }}'
        assert issues(document) == []

    def test_a_value_from_before_the_branch_is_set_after_the_join(self) -> None:
        document = full()
        document["nodes"][4]["config"]["output"]["answer"] = "{{ search.results }}"
        assert issues(document) == []

    def test_alternatives_need_to_cover_every_way(self) -> None:
        document = graph(
            node("p", "pick", {"take": "a", "choices": ["a", "b", "c"]}),
            text("a", "x"),
            text("b", "x"),
            text("c", "x"),
            end(answer="{{ a.text ?? b.text }}"),
            edges=["start > p", "p.a > a", "p.b > b", "p.c > c", "a > done", "b > done", "c > done"],
        )
        assert only(document).code == "maybe_unset"

    def test_nested_branches_that_join_step_by_step(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            text("c", "x"),
            text("d", "{{ b.text ?? c.text }}"),
            text("e", "x"),
            end(answer="{{ d.text ?? e.text }}"),
            edges=[
                "start > a",
                "a > b",
                "b > d",
                "b.error > c",
                "c > d",
                "a.error > e",
                "d > done",
                "e > done",
            ],
        )
        assert issues(document) == []

    def test_the_first_to_arrive_need_not_have_the_other(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            text("first", "{{ a.text }}", join="any"),
            end(),
            edges=["start > a", "start > b", "a > first", "b > first", "first > done"],
        )
        assert only(document).code == "maybe_unset"

    def test_the_first_to_arrive_has_its_own(self) -> None:
        document = graph(
            llm("a"),
            llm("b"),
            text("first", "{{ a.text ?? b.text }}", join="any"),
            end(),
            edges=["start > a", "start > b", "a > first", "b > first", "first > done"],
        )
        assert issues(document) == []

    def test_an_error_that_nobody_hands_on(self) -> None:
        assert only(line(llm("a"), output="{{ a.error.message }}")).code == "never_set"

    def test_an_optional_input_may_be_unset(self) -> None:
        assert only(line(output="{{ inputs.language }}")).code == "maybe_unset"

    def test_an_optional_input_with_a_default_is_set(self) -> None:
        document = line(output="{{ inputs.language }}")
        document["inputs"]["properties"]["language"]["default"] = "en"
        assert issues(document) == []

    def test_state_without_an_initial_value_may_be_unset(self) -> None:
        document = line(output="{{ state.a }} {{ state.b }}")
        document["state"] = {"a": {"type": "string"}, "b": {"type": "string", "initial": ""}}
        assert "state.a" in only(document).message

    def test_a_default_for_failures_keeps_its_outputs_set(self) -> None:
        write = llm("write", on_error={"default": {"text": "sorry"}})
        assert issues(line(write, output="{{ write.text }}")) == []

    def test_outputs_that_the_default_lacks_may_be_unset(self) -> None:
        write = llm("write", on_error={"default": {"text": "sorry"}})
        assert only(line(write, output="{{ write.citations }}")).code == "maybe_unset"

    def test_too_many_branches_to_prove_is_a_warning(self) -> None:
        ids = [f"n{i}" for i in range(200)]
        chain = ["start > n0", *(f"{a} > {b}" for a, b in pairwise(ids)), "n199 > done"]
        errors = [f"{name}.error > sorry" for name in ids]
        document = graph(*map(llm, ids), text("sorry", "x"), end(), edges=[*chain, *errors, "sorry > done"])
        issue = only(document)
        assert (issue.code, issue.severity) == ("too_branchy", Severity.WARNING)


class TestTypes:
    def test_text_where_passages_are_taken(self) -> None:
        document = line(llm("a"), llm("b", context="{{ a.text }}"))
        issue = only(document)
        assert issue.message == "'a.text' is string, but 'context' takes array of object"

    def test_a_list_of_other_objects(self) -> None:
        assert only(line(llm("a"), llm("b", context="{{ a.citations }}"))).code == "type_mismatch"

    def test_plain_text_where_a_list_is_taken(self) -> None:
        assert only(line(llm("a", history="none"))).code == "type_mismatch"

    def test_an_input_of_an_open_type_fits(self) -> None:
        document = line(llm("a", history="{{ inputs.past }}"))
        document["inputs"]["properties"]["past"] = {"default": []}
        assert issues(document) == []


class TestInterface:
    def test_an_input_that_is_not_declared(self) -> None:
        document = line(interface={"message": "qestion"})
        assert (only(document).code, only(document).pointer) == ("unknown_input", "/interface/message")

    def test_a_message_that_is_not_text(self) -> None:
        document = line(interface={"message": "n"})
        document["inputs"]["properties"]["n"] = {"type": "integer"}
        assert only(document).code == "type_mismatch"

    def test_an_answer_that_one_end_does_not_give(self) -> None:
        document = graph(
            llm("a"),
            end("good", answer="{{ a.text }}"),
            end("bad", text="x"),
            edges=["start > a", "a > good", "a.error > bad"],
            interface={"answer": "answer"},
        )
        assert (only(document).code, only(document).node_id) == ("unknown_answer", "bad")

    @pytest.mark.parametrize(
        ("schema", "code"),
        [
            ({"type": "array"}, "invalid_schema"),
            ({"type": "object", "required": "question"}, "invalid_schema"),
            ({"type": "object", "properties": {"q": {"type": "text"}}}, "invalid_schema"),
            ({"type": "object", "properties": {"q": {"pattern": "(a+)+$"}}}, "unsupported_schema"),
            ({"type": "object", "properties": {"q": {"$ref": "http://10.0.0.1/x"}}}, "unsupported_schema"),
            ({"type": "object", "properties": {"q": {"$ref": "#"}}}, "unsupported_schema"),
            (
                {
                    "type": "object",
                    "properties": {"q": {"$ref": "#/$defs/d0"}},
                    "$defs": {
                        **{f"d{i}": {"allOf": [{"$ref": f"#/$defs/d{i + 1}"}] * 8} for i in range(12)},
                        "d12": {"type": "string"},
                    },
                },
                "unsupported_schema",
            ),
        ],
    )
    def test_schemas_that_are_refused(self, schema: Any, code: str) -> None:
        assert code in codes(line(output="x") | {"inputs": schema})

    def test_a_property_called_pattern_is_fine(self) -> None:
        document = line(output="x")
        document["inputs"]["properties"]["pattern"] = {"type": "string"}
        assert issues(document) == []


CATALOG = Catalog(models={"default-chat": frozenset()}, collections=frozenset({"handbook"}))


class TestBindings:
    def test_a_name_that_is_not_bound(self) -> None:
        document = line(llm("write", model="mian"))
        issue = only(document)
        assert (issue.code, "did you mean 'main'?" in issue.fix) == ("unbound", True)

    def test_targets_are_checked_against_the_catalog(self) -> None:
        document = line(output="x")
        document["bindings"]["collections"] = {"kb": "handbok"}
        issue = only(document, CATALOG)
        assert (issue.code, issue.pointer) == ("unknown_binding", "/bindings/collections/kb")

    def test_without_a_catalog_targets_are_taken_on_trust(self) -> None:
        document = line(output="x")
        document["bindings"]["collections"] = {"kb": "handbok"}
        assert issues(document) == []

    def test_a_model_that_lacks_what_the_node_needs(self) -> None:
        class ModelCallerConfig(CallerConfig):
            model: str

        ModelCallerConfig.model_fields["model"].metadata.append(
            NODE_TYPES["llm"].config.model_fields["model"].metadata[0]
        )
        needy = node_type(ModelCallerConfig, caller, outputs={}, requires={Capability.TOOLS})
        compiler = AgentCompiler(NodeTypes([*NODE_TYPES.values(), needy]))
        catalog = Catalog(
            models={"default-chat": frozenset(), "big": frozenset({Capability.TOOLS})},
            collections=frozenset({"handbook"}),
        )
        (issue,) = compiler.check(line(node("call", "caller", {"model": "main"})), catalog).issues
        assert issue.code == "missing_capability"
        assert "'default-chat' lacks tools" in issue.message
        assert "'big'" in issue.fix


class TestPolicies:
    def test_an_effect_cannot_be_talked_down(self) -> None:
        assert only(line(llm("a") | {"effect": "pure"})).code == "effect_lowered"

    def test_a_default_and_an_error_edge_exclude_each_other(self) -> None:
        document = graph(
            llm("a", on_error={"default": {"text": ""}}),
            end(),
            edges=["start > a", "a > done", "a.error > done"],
        )
        assert "conflicting_error_handling" in codes(document)

    def test_a_default_for_an_output_that_does_not_exist(self) -> None:
        assert only(line(llm("a", on_error={"default": {"txt": ""}}))).code == "unknown_output"

    def test_a_default_of_the_wrong_type(self) -> None:
        assert only(line(llm("a", on_error={"default": {"text": 3}}))).code == "type_mismatch"

    def test_a_start_cannot_be_retried(self) -> None:
        document = line(output="x")
        document["nodes"][0]["retry"] = {}
        assert only(document).code == "cannot_fail"

    def test_another_word_for_on_error(self) -> None:
        assert only(line(llm("a", on_error="ignore"))).pointer == "/nodes/1/on_error"

    def test_a_retry_on_an_unknown_code(self) -> None:
        assert only(line(llm("a", retry={"on": ["rate"]}))).pointer == "/nodes/1/retry/on/0"


class TestState:
    @pytest.mark.parametrize(
        ("field", "code"),
        [
            ({"type": "string", "reducer": "append"}, "invalid_reducer"),
            ({"type": "array", "reducer": "merge"}, "invalid_reducer"),
            ({"type": "object", "reducer": "add"}, "invalid_reducer"),
            ({"type": "array", "reducer": "sum"}, "invalid_value"),
            ({"type": "array", "initial": 3}, "invalid_initial"),
            ({"reducer": "add"}, "missing_key"),
        ],
    )
    def test_fields(self, field: Any, code: str) -> None:
        assert only(line(output="x") | {"state": {"f": field}}).code == code

    def test_a_field_that_is_not_declared(self) -> None:
        assert only(line(node("n", "note", {"field": "f", "value": "x"}))).code == "unknown_state"

    @pytest.mark.parametrize(("reducer", "found"), [("replace", ["parallel_writers"]), ("append", [])])
    def test_parallel_writers(self, reducer: str, found: list[str]) -> None:
        document = graph(
            node("a", "note", {"field": "f", "value": "x"}),
            node("b", "note", {"field": "f", "value": "x"}),
            end(),
            edges=["start > a", "start > b", "a > done", "b > done"],
            state={"f": {"type": "array", "reducer": reducer}},
        )
        assert codes(document) == found

    def test_writers_on_exclusive_branches(self) -> None:
        document = graph(
            node("p", "pick", {"take": "yes"}),
            node("a", "note", {"field": "f", "value": "x"}),
            node("b", "note", {"field": "f", "value": "x"}),
            end(),
            edges=["start > p", "p.yes > a", "p.no > b", "a > done", "b > done"],
            state={"f": {"type": "string"}},
        )
        assert codes(document) == []


class TestPlan:
    def test_a_chain_of_pure_nodes_is_one_step(self) -> None:
        plan = COMPILER.compile(line(text("a", "x"), text("b", "{{ a.text }}"), output="{{ b.text }}"))
        assert [[part.id for part in step.nodes] for step in plan.steps] == [["start", "a", "b", "done"]]

    def test_a_policy_keeps_a_pure_node_apart(self) -> None:
        plan = COMPILER.compile(line(text("a", "x", timeout_s=3), text("b", "x")))
        assert [[part.id for part in step.nodes] for step in plan.steps] == [["start"], ["a"], ["b", "done"]]

    def test_a_branch_or_join_ends_the_chain(self) -> None:
        document = graph(
            text("a", "x"),
            text("b", "x"),
            end(),
            edges=["start > a", "start > b", "a > done", "b > done"],
        )
        plan = COMPILER.compile(document)
        assert [[part.id for part in step.nodes] for step in plan.steps] == [
            ["start"],
            ["a"],
            ["b"],
            ["done"],
        ]

    def test_steps_know_the_steps_before_them(self) -> None:
        plan = COMPILER.compile(full())
        assert {step.id: step.sources for step in plan.steps}["done"] == ("write", "apology")

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
        orders = [[step.id for step in COMPILER.compile(full()).steps] for _ in range(3)]
        assert orders[0] == orders[1] == orders[2] == ["start", "search", "write", "apology", "done"]


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
    @settings(deadline=None, max_examples=150)
    def test_any_json_gets_a_report(self, document: Any) -> None:
        assert not COMPILER.check(document).valid

    @given(st.data())
    @settings(deadline=None, max_examples=300)
    def test_a_damaged_document_gets_a_report_or_compiles(self, data: st.DataObject) -> None:
        document = copy.deepcopy(full())
        for _ in range(data.draw(st.integers(1, 4))):
            *path, key = data.draw(st.sampled_from([place for place in places(document) if place]))
            target: Any = document
            for step in path:
                target = target[step]
            if data.draw(st.booleans()):
                target[key] = data.draw(HOSTILE)
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


class TestLoading:
    def test_yaml_and_json_of_the_same_graph_are_equal(self) -> None:
        loaded = load_graph((EXAMPLES / "handbook.yaml").read_text())
        assert load_graph(loaded.canonical_json().decode()) == loaded

    def test_yaml_words_that_are_not_booleans_stay_text(self) -> None:
        assert load_document("on: [no, yes, off, 2024-01-01, 012]\n") == {
            "on": ["no", "yes", "off", "2024-01-01", "012"]
        }

    def test_yaml_scalars_of_json(self) -> None:
        assert load_document("[true, false, null, 1, -2, 1.5, 2e3]") == [
            True,
            False,
            None,
            1,
            -2,
            1.5,
            2000.0,
        ]

    @pytest.mark.parametrize("source", ['{"a": 1, "a": 2}', "a: 1\na: 2\n"])
    def test_a_key_twice(self, source: str) -> None:
        with pytest.raises(InvalidGraph, match="'a' is there twice"):
            load_document(source)

    @pytest.mark.parametrize(
        "source", ['{"a": ', "a: [", "a: !!python/object:os.system {}", "{" * 5, "? [a]\n: 1"]
    )
    def test_text_that_does_not_parse(self, source: str) -> None:
        with pytest.raises(InvalidGraph) as failure:
            load_document(source)
        assert failure.value.report.issues[0].code == "invalid_syntax"

    @pytest.mark.parametrize("source", ["[" * 100_000, '{"a":' * 100_000])
    def test_text_that_is_nested_endlessly(self, source: str) -> None:
        with pytest.raises(InvalidGraph) as failure:
            load_document(source)
        assert failure.value.report.issues[0].code == "too_deep"

    def test_aliases_that_explode_are_too_large(self) -> None:
        lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
        with pytest.raises(InvalidGraph) as failure:
            load_graph("\n".join(lines))
        assert failure.value.report.issues[-1].code == "too_large"

    def test_an_alias_to_itself_is_too_deep(self) -> None:
        with pytest.raises(InvalidGraph) as failure:
            load_graph("a: &a [*a]")
        assert failure.value.report.issues[-1].code == "too_deep"
