"""What is wrong with a document as a graph: structure, policies, state."""

from __future__ import annotations

from typing import Any

import pytest

from tests.agent.documents import (
    codes,
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
