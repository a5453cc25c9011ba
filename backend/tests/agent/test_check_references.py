"""What is wrong with references: existence, order, branches, types."""

from __future__ import annotations

from itertools import pairwise

from app.core.report import Severity
from tests.agent.documents import (
    ANSWER,
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
            **ANSWER,
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
        assert issues(line(write, output="{{ write.text }}", **ANSWER)) == []

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
