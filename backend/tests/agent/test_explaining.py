"""What a plan is said to do is what it does."""

from __future__ import annotations

from typing import Any

import pytest

from app.agent.core.base import NODE_TYPES, NodeType
from app.agent.graph.explaining import ExplainedNode, Explanation, explained
from tests.agent.documents import end, full, graph, llm, text
from tests.agent.doubles import COMPILER
from tests.agent.test_every_node_type import document


def told(graph: dict[str, Any]) -> Explanation:
    return explained(COMPILER.compile(graph))


def of(graph: dict[str, Any], name: str) -> ExplainedNode:
    return next(node for node in told(graph).nodes if node.id == name)


class TestNodes:
    def test_wait_for_edges_and_lead_to_others_by_their_handles(self) -> None:
        done, write = of(full(), "done"), of(full(), "write")
        assert [(token.source, token.handle) for token in done.waits_for] == [
            ("write", "out"),
            ("apology", "out"),
        ]
        assert write.leads_to == {"out": ["done"], "error": ["apology"]}

    def test_say_what_they_read_and_who_makes_it(self) -> None:
        reads = [(reading.reference, reading.node) for reading in of(full(), "write").reads]
        assert reads == [("inputs.question", None), ("search.results", "search")]

    def test_name_their_bindings_and_what_a_model_must_be_able_to_do(self) -> None:
        asking = graph(
            llm("ask", output_schema={"type": "object"}), end(), edges=["start > ask", "ask > done"]
        )
        ask = of(asking, "ask")
        assert [(b.field, b.kind, b.name) for b in ask.binds] == [("model", "models", "main")]
        assert ask.requires == ["structured_output"]

    def test_show_policies_with_their_defaults(self) -> None:
        asking = graph(llm("ask", retry={}, timeout_s=9), end(), edges=["start > ask", "ask > done"])
        policies = of(asking, "ask").policies
        assert policies.retry
        assert (policies.retry.max_attempts, policies.timeout_s) == (3, 9)
        assert policies.on_error == "fails the run"

    @pytest.mark.parametrize(
        ("name", "becomes"),
        [("write", "leaves by error"), ("search", "fails the run"), ("done", "cannot fail")],
    )
    def test_say_what_becomes_of_a_failure(self, name: str, becomes: str) -> None:
        assert of(full(), name).policies.on_error == becomes

    def test_tell_whose_text_is_the_answer_and_what_a_crash_repeats(self) -> None:
        write, apology = of(full(), "write"), of(full(), "apology")
        assert (write.live, write.journalled, write.after_a_crash) == (True, True, "taken from the journal")
        assert (apology.live, apology.journalled, apology.after_a_crash) == (False, False, "worked out anew")

    @pytest.mark.parametrize("kind", NODE_TYPES.values(), ids=lambda kind: kind.name)
    def test_of_every_type_are_told(self, kind: NodeType) -> None:
        if kind.name not in ("start", "end"):
            node = of(document(kind), "n")
            assert (node.type, node.inner is not None) == (kind.name, kind.config.holds_graph())


class TestSteps:
    def test_are_those_of_the_plan_each_node_once(self) -> None:
        plan, explanation = COMPILER.compile(full()), told(full())
        found = [{name for stage in step.stages for name in stage} for step in explanation.steps]
        assert found == [{node.id for node in step.nodes} for step in plan.steps]

    def test_a_chain_is_fused_one_node_after_the_other(self) -> None:
        chain = graph(text("a", "x"), text("b", "y"), end(), edges=["start > a", "a > b", "b > done"])
        (step,) = told(chain).steps
        assert (step.fused, step.stages) == (True, [["start"], ["a"], ["b"], ["done"]])

    def test_branches_are_side_by_side(self) -> None:
        fork = graph(llm("a"), llm("b"), end(), edges=["start > a", "start > b", "a > done", "b > done"])
        assert ["a", "b"] in [stage for step in told(fork).steps for stage in step.stages]

    def test_only_the_last_is_stored_where_durability_is_exit(self) -> None:
        steps = told(full() | {"durability": "exit"}).steps
        assert [step.checkpoint for step in steps] == [False] * (len(steps) - 1) + [True]
