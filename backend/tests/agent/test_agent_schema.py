"""The document's one definition: canonical form, hash, schemas, registry, factory."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from app.agent.core.base import NODE_TYPES, NodeTypes, node_type
from app.agent.core.interfaces import Capability
from app.agent.core.value_types import fits, follow, given_by, of_schema, taken_by
from app.agent.factory import AgentFactory
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.issues import InvalidGraph
from app.agent.graph.loading import load_graph
from app.agent.graph.schema import AgentGraph
from app.agent.workflows.simple_rag import simple_rag
from tests.agent.documents import end, graph, llm, text
from tests.agent.doubles import CallerConfig, caller


def document() -> dict[str, Any]:
    return graph(llm("write"), end(answer="{{ write.text }}"), edges=["start > write", "write > done"])


def hash_of(source: dict[str, Any]) -> str:
    return AgentGraph.model_validate(source).content_hash


class TestCanonicalForm:
    def test_reading_it_back_gives_the_same_bytes(self) -> None:
        loaded = AgentGraph.model_validate(document())
        assert load_graph(loaded.canonical_json().decode()).canonical_json() == loaded.canonical_json()

    def test_defaults_written_out_change_nothing(self) -> None:
        spelt = document()
        spelt["nodes"][1] |= {"join": "all", "timeout_s": None, "on_error": None}
        spelt["nodes"][0]["config"] = {}
        spelt |= {"state": {}, "layout": {}, "interface": None}
        assert (
            AgentGraph.model_validate(spelt).content_hash
            == AgentGraph.model_validate(document()).content_hash
        )

    def test_keeps_a_header_that_is_a_secret(self) -> None:
        config = {"url": "https://api.example/", "headers": {"X-A": "a", "X-B": {"secret": "key"}}}
        call = {"id": "call", "type": "http", "config": config}
        written = graph(call, end(), edges=["start > call", "call > done"])
        assert AgentGraph.model_validate(written).document()["nodes"][1] == call

    def test_layout_is_not_hashed_but_kept(self) -> None:
        moved = AgentGraph.model_validate(document() | {"layout": {"write": {"x": 480}}})
        assert moved.content_hash == hash_of(document())
        assert b'"x":480' in moved.canonical_json()

    def test_logic_is_hashed(self) -> None:
        changed = copy.deepcopy(document())
        changed["nodes"][1]["config"]["temperature"] = 1
        assert (
            AgentGraph.model_validate(changed).content_hash
            != AgentGraph.model_validate(document()).content_hash
        )

    def test_the_hash_is_stable(self) -> None:
        assert simple_rag("handbook").content_hash == (
            "4be949b95e85a65b8bcf34c92c100a410ee5f9e93ad08e263b714828a96fccaa"
        )


class TestSchema:
    def test_a_misspelt_key_is_refused(self) -> None:
        broken = document()
        broken["nodes"][1]["config"]["promt"] = []
        with pytest.raises(ValidationError, match="promt"):
            AgentGraph.model_validate(broken)

    def test_the_json_schema_knows_every_node_type(self) -> None:
        schema = AgentGraph.model_json_schema()
        mapping = schema["properties"]["nodes"]["items"]["discriminator"]["mapping"]
        assert set(mapping) == set(NODE_TYPES)

    def test_the_json_schema_accepts_what_the_model_accepts(self) -> None:
        validator = Draft202012Validator(AgentGraph.model_json_schema())
        assert list(validator.iter_errors(document())) == []
        assert list(validator.iter_errors(document() | {"colour": 1}))

    @pytest.mark.parametrize("value", [float("nan"), 2**60, "\ud800"])
    def test_a_graph_is_always_canonicalizable(self, value: Any) -> None:
        with pytest.raises(ValidationError, match="not_json"):
            AgentGraph.model_validate(document() | {"layout": {"x": value}})

    def test_a_graph_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            AgentGraph.model_validate(document()).nodes = []  # type: ignore[misc]


class TestRegistry:
    def test_the_five_types(self) -> None:
        assert set(NODE_TYPES) >= {"start", "retrieve", "llm", "template", "end"}

    def test_a_name_is_taken_once(self) -> None:
        with pytest.raises(ValueError, match="'template' is already registered"):
            NODE_TYPES.add(NODE_TYPES["template"])

    def test_a_new_type_is_one_entry(self) -> None:
        caller_type = node_type(CallerConfig, caller, outputs={}, requires={Capability.TOOLS})
        compiler = AgentCompiler(NodeTypes([*NODE_TYPES.values(), caller_type]))
        call = {"id": "call", "type": "caller"}
        assert compiler.check(graph(call, end(), edges=["start > call", "call > done"])).valid

    def test_the_summary_is_the_first_line_of_the_configuration(self) -> None:
        assert NODE_TYPES["template"].summary == "Text with references filled in."


class TestValueTypes:
    def test_follows_definitions_and_unions(self) -> None:
        schema = {
            "type": "object",
            "properties": {"a": {"anyOf": [{"$ref": "#/$defs/x"}, {"type": "null"}]}},
            "$defs": {"x": {"type": "object", "properties": {"b": {"type": "integer"}}}},
        }
        found = follow(of_schema(schema), ("a", "b"))
        assert str(found.type) == "integer"

    def test_a_recursive_definition_ends_open(self) -> None:
        schema = {"$ref": "#/$defs/x", "$defs": {"x": {"properties": {"x": {"$ref": "#/$defs/x"}}}}}
        assert str(follow(of_schema(schema), ["x"] * 30).type) == "any value"

    @pytest.mark.parametrize(
        ("takes", "gives", "fit"),
        [
            (int, float, True),
            (str, int, False),
            (list[str], list[int], False),
            (list[str], list[Any], True),
            (str | None, str, True),
            (dict[str, Any], list[Any], False),
            (Any, str, True),
        ],
    )
    def test_fits(self, takes: Any, gives: Any, fit: bool) -> None:
        assert fits(taken_by(takes), given_by(gives)) is fit


class TestFactory:
    def test_builds_once_per_hash(self) -> None:
        factory, rag = AgentFactory(), simple_rag("a")
        assert factory.build(rag, rag.content_hash) is factory.build(rag.document(), rag.content_hash)

    def test_forgets_the_least_recently_used(self) -> None:
        factory = AgentFactory(capacity=2)
        a, b, c = (simple_rag(name) for name in "abc")
        first, second = factory.build(a, "a"), factory.build(b, "b")
        factory.build(a, "a")
        factory.build(c, "c")
        assert factory.build(a, "a") is first
        assert factory.build(b, "b") is not second

    def test_an_invalid_graph_is_not_kept(self) -> None:
        factory = AgentFactory()
        with pytest.raises(InvalidGraph):
            factory.build(graph(text("say", "{{ x }}"), edges=[]), "hash")
        rag = simple_rag("a")
        assert factory.build(rag, "hash").plan.answering == ("write",)
