"""The semantic diff: applying it reproduces the target exactly, and it says what changed in few words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.graph.changes import GraphDiff
from app.agent.graph.diff import apply, compare
from app.agent.graph.edits import DoesNotFit
from tests.agent.documents import full, text

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
    | st.sampled_from([0, 1, 1.0, True, False, "", "1", "a/b", "~0"])
)
KEYS = st.sampled_from(["a", "b", "0", "1", "", "a/b", "~", "~1", "-"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4)
)
IDS = st.sampled_from(["start", "search", "write", "apology", "done"])
NODES = st.fixed_dictionaries(
    {"id": IDS, "type": st.sampled_from(["llm", "template"])},
    optional={"config": st.dictionaries(KEYS, VALUES, max_size=3), "retry": VALUES},
)
EDGES = st.fixed_dictionaries({"source": IDS, "target": IDS}, optional={"handle": st.just("error")})
SECTIONS: dict[str, Any] = {
    "nodes": st.lists(NODES, max_size=5, unique_by=lambda node: node["id"]) | st.lists(NODES) | VALUES,
    "edges": st.lists(EDGES, max_size=6) | VALUES,
    "inputs": VALUES,
    "bindings": st.dictionaries(KEYS, st.dictionaries(KEYS, st.text(max_size=3), max_size=3), max_size=3),
    "durability": st.sampled_from(["step", "exit"]),
    "layout": st.dictionaries(IDS, VALUES, max_size=4),
    "state": VALUES,
    "a/b~": VALUES,
}
DOCUMENTS = st.fixed_dictionaries({}, optional=SECTIONS)
GRAPHS = st.fixed_dictionaries(
    {
        "nodes": st.lists(NODES, max_size=5, unique_by=lambda node: node["id"]),
        "edges": st.lists(EDGES, max_size=6, unique_by=lambda edge: frozenset(edge.items())),
    },
    optional={"inputs": VALUES, "layout": VALUES},
)
QUIET = settings(deadline=None)


def canonical(document: Any) -> bytes:
    return rfc8785.dumps(document)


def through_json(diff: GraphDiff) -> GraphDiff:
    return GraphDiff.model_validate_json(diff.model_dump_json())


def tried(diff: GraphDiff, document: dict[str, Any]) -> tuple[dict[str, Any], DoesNotFit | None]:
    try:
        return apply(diff, document), None
    except DoesNotFit as error:
        return {}, error


class TestApplied:
    @QUIET
    @given(DOCUMENTS | GRAPHS, DOCUMENTS | GRAPHS)
    def test_to_the_one_gives_the_other(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        before, after = canonical(one), canonical(other)
        assert canonical(apply(through_json(compare(one, other)), one)) == after
        assert (canonical(one), canonical(other)) == (before, after)

    @QUIET
    @given(GRAPHS, st.randoms(use_true_random=False))
    def test_gives_another_order_too(self, one: dict[str, Any], random: Any) -> None:
        other = copy.deepcopy(one)
        random.shuffle(other["nodes"])
        random.shuffle(other["edges"])
        diff = compare(one, other)
        assert {change.kind for change in diff.changes} <= {"reordered"}
        assert canonical(apply(through_json(diff), one)) == canonical(other)

    @QUIET
    @given(GRAPHS, GRAPHS, GRAPHS)
    def test_to_something_else_does_what_it_says_or_names_the_place_where_it_does_not_fit(
        self, one: dict[str, Any], other: dict[str, Any], third: dict[str, Any]
    ) -> None:
        diff = compare(one, other)
        made, refused = tried(diff, third)
        if refused is not None:
            assert refused.errors[0].pointer.startswith(("/nodes", "/edges", "/inputs", "/layout"))
            return
        ids = {node["id"] for node in made["nodes"]}
        assert ids >= {change.id for change in diff.changes if change.kind == "node_added"}
        assert not ids & {change.id for change in diff.changes if change.kind == "node_removed"}


class TestIdentity:
    @QUIET
    @given(DOCUMENTS)
    def test_a_document_does_not_differ_from_itself(self, one: dict[str, Any]) -> None:
        assert compare(one, copy.deepcopy(one)).empty

    @QUIET
    @given(DOCUMENTS, DOCUMENTS)
    def test_only_equal_documents_do_not_differ(self, one: dict[str, Any], other: dict[str, Any]) -> None:
        assert compare(one, other).empty == (canonical(one) == canonical(other))


def changed(**sections: Any) -> list[str]:
    return compare(full(), full() | sections).lines()


class TestTelling:
    def test_names_the_field_of_a_node(self) -> None:
        nodes = full()["nodes"]
        nodes[1]["config"]["top_k"] = 9
        assert changed(nodes=nodes) == ["~ node search: config/top_k added: 9"]

    def test_names_added_and_removed_nodes_with_their_types(self) -> None:
        nodes = [node for node in full()["nodes"] if node["id"] != "apology"] + [text("sorry", "No.")]
        assert changed(nodes=nodes) == ["- node apology (template)", "+ node sorry (template)"]

    def test_names_edges_with_their_handles(self) -> None:
        edges = [edge for edge in full()["edges"] if "handle" not in edge]
        assert changed(edges=edges) == ["- edge write.error → apology"]

    def test_keeps_the_layout_apart(self) -> None:
        diff = compare(full(), full() | {"layout": {"write": {"x": 1}}})
        assert diff.changes == []
        assert diff.lines() == ['~ layout: layout added: {"write": {"x": 1}}']

    def test_names_the_place_in_other_sections(self) -> None:
        bindings = {"models": {"main": "other"}, "collections": {"kb": "handbook"}}
        assert changed(bindings=bindings) == ['~ bindings/models/main "default-chat" → "other"']

    def test_of_long_values_is_one_short_line(self) -> None:
        (line,) = changed(interface={"message": "x" * 1000 + "\n" + "y" * 1000})
        assert len(line) < 150
        assert "\n" not in line

    def test_tells_of_a_message_inserted_before_others_as_that(self) -> None:
        nodes = full()["nodes"]
        nodes[2]["config"]["prompt"].insert(0, {"role": "system", "content": "Be brief."})
        (line,) = changed(nodes=nodes)
        assert line.startswith("~ node write: config/prompt/0 added: ")


class TestUnfit:
    @pytest.mark.parametrize(
        ("spoil", "place"),
        [
            (lambda graph: graph["nodes"][2]["config"].update(citations=False), "/nodes/2/config/citations"),
            (lambda graph: graph["nodes"].pop(2), "/nodes"),
            (lambda graph: graph["edges"].clear(), "/edges"),
            (lambda graph: graph.pop("edges"), "/edges"),
            (lambda graph: graph.update(nodes=[{"id": 7}]), "/nodes"),
            (lambda graph: graph.update(bindings={}), "/bindings/models/main"),
        ],
    )
    def test_names_the_place(self, spoil: Any, place: str) -> None:
        after = full()
        after["nodes"][2]["config"]["citations"] = None
        after["edges"].pop(0)
        after["bindings"]["models"]["main"] = "other"
        diff, other = compare(full(), after), full()
        spoil(other)
        with pytest.raises(DoesNotFit) as refused:
            apply(diff, other)
        assert refused.value.errors[0].pointer == place
