"""What is wrong with a document's parts on their own: keys, types, sizes, names of models and inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from app.agent.core.base import NODE_TYPES, NodeTypes, node_type
from app.agent.core.interfaces import Capability, Catalog
from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.limits import MAX_EDGES, MAX_ENDS, MAX_NODES, MAX_TEXT
from app.agent.graph.schema import Interface
from tests.agent.documents import (
    CATALOG,
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
from tests.agent.doubles import CallerConfig, caller


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

    def test_a_cache_needs_its_time(self) -> None:
        issue = only(line(llm("write") | {"cache": {}}))
        assert (issue.code, issue.pointer) == ("missing_key", "/nodes/1/cache")

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
        "output", ["{{ write.text }}", "Answer: {{ write.text }}!", "{{ write.text ?? 1 }}"]
    )
    @pytest.mark.parametrize("interface", [None, {}, {"message": "question"}])
    def test_text_that_nobody_is_shown_is_a_warning(self, output: str, interface: Any) -> None:
        issue = only(line(llm("write"), output=output, interface=interface))
        assert (issue.code, issue.severity, issue.node_id) == ("unshown_answer", "warning", "done")
        assert issue.pointer == "/nodes/2/config/output/answer"
        assert '"interface": {"answer": "answer"}' in issue.fix

    @pytest.mark.parametrize(
        ("output", "interface"),
        [
            ("{{ write.text }}", {"answer": "answer"}),
            ("Answer: {{ write.text }}!", {"answer": "answer"}),
            ("{{ write.text }}", {"answer": None}),
            ("{{ write.citations }}", None),
            ({"deep": "{{ write.text }}"}, None),
            ("x", None),
        ],
    )
    def test_text_that_is_shown_or_was_not_meant_to_be_is_fine(self, output: Any, interface: Any) -> None:
        assert issues(line(llm("write"), output=output, interface=interface)) == []

    def test_json_of_a_model_is_not_meant_to_be_shown(self) -> None:
        write = llm("write", output_schema={"type": "object", "properties": {}})
        assert issues(line(write, output="{{ write.text }}")) == []

    def test_every_key_says_what_it_does(self) -> None:
        properties = Interface.model_json_schema()["properties"]
        assert all(part["description"] for part in properties.values())
        assert "TEXT_MESSAGE_" in properties["answer"]["description"]

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

    def test_tools_are_checked_against_the_catalog(self) -> None:
        document = line(output="x")
        document["bindings"]["tools"] = {"crm": "crm-lookup"}
        issue = only(document, CATALOG)
        assert (issue.code, issue.pointer) == ("unknown_binding", "/bindings/tools/crm")

    def test_ids_are_targets_but_no_remedies(self) -> None:
        document = line(output="x")
        document["bindings"]["collections"] = {"kb": "handbok"}
        catalog = replace(CATALOG, collections=frozenset({"handbook", str(UUID(int=7))}))
        assert only(document, catalog).fix == "did you mean 'handbook'? valid: 'handbook'"
        document["bindings"]["collections"] = {"kb": str(UUID(int=7))}
        assert issues(document, catalog) == []

    def test_a_secret_that_is_not_there_is_a_warning(self) -> None:
        config = {"url": "https://a.example/", "headers": {"X": {"secret": "crm-tokn"}}}
        catalog = replace(CATALOG, secrets=frozenset({"crm-token"}))
        issue = only(line(node("call", "http", config)), catalog)
        assert (issue.code, issue.severity) == ("unknown_secret", "warning")
        assert issue.pointer == "/nodes/1/config/headers/X/secret"
        assert "did you mean 'crm-token'?" in issue.fix

    def test_a_secret_is_looked_for_whatever_else_is_wrong_with_its_node(self) -> None:
        config = {"url": 5, "headers": {"X": {"secret": "absent"}}}
        found = issues(line(node("call", "http", config)), replace(CATALOG, secrets=frozenset()))
        assert [issue.code for issue in found] == ["wrong_type", "unknown_secret"]

    @pytest.mark.parametrize("secrets", [None, frozenset({"crm-token"})])
    def test_a_secret_that_is_there_or_may_not_be_known_is_fine(self, secrets: frozenset[str] | None) -> None:
        config = {"url": "https://a.example/", "headers": {"X": {"secret": "crm-token"}}}
        assert issues(line(node("call", "http", config)), replace(CATALOG, secrets=secrets)) == []

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
