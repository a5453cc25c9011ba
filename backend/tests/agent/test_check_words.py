"""What is said about a value that its place does not take: the field, what it takes, what it was given."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.agent.core.base import NODE_TYPES
from app.agent.graph.json_schema import errors_of
from app.agent.graph.schema import AgentGraph, node_model
from app.core.report import Issue
from tests.agent.documents import codes, graph, issues, line, node, only, text
from tests.agent.samples import config_of, sample

FOREIGN = re.compile(
    r"(?<!['\"])\b(?:None|True|False|Template|Secret)\b|(?i:constrained|literal\[|tuple|dict|function-|\bstr\b|\bint\b|"
    r"\bfloat\b|pydantic|validat|\binput should|instance|\bunion\b|\btag\b|\[key\])"
)
WRONG: tuple[Any, ...] = (
    None, True, False, -1, 0, 1.5, 10**9, "", "x", "{{ x", "x" * 5000, [], [None], [1] * 300, ["x", "x"], {},
    {"x": None}, {"x": {"y": 1}}, {f"k{i}": "x" for i in range(300)},
)  # fmt: skip
Place = tuple[str | int, ...]
STATUS = "an integer from 100 to 599, '1xx', '2xx', '3xx', '4xx' or '5xx'"


def with_config(kind: str, **config: Any) -> dict[str, Any]:
    return line(node("n", kind, config))


def http(**config: Any) -> dict[str, Any]:
    return with_config("http", url="https://api.example/x", **config)


class TestMessages:
    @pytest.mark.parametrize(
        ("document", "code", "message"),
        [
            (http(expect_status=[1000]), "out_of_range",
             f"'expect_status[0]' takes {STATUS}, not 1000"),
            (http(expect_status=["6xx"]), "invalid_value",
             f"'expect_status[0]' takes {STATUS}, not '6xx'"),
            (http(expect_status=[None]), "wrong_type",
             f"'expect_status[0]' takes {STATUS}, not null"),
            (http(expect_status=[]), "out_of_range", "'expect_status' takes a list of 1 to 50 items, not []"),
            (http(method="POST", body={"json": 1, "text": "x"}), "out_of_range",
             "'body' takes an object with at most one of the keys 'json', 'text', 'form', "
             'not {"json": 1, "text": "x"}'),
            (http(method="POST", body={"jsn": 1}), "unknown_key", "unknown key 'jsn'"),
            (http(headers={"A": 5}), "wrong_type",
             "'A' takes an object {\"secret\": …} or a string, not 5"),
            (http(headers={"A": {"secrt": "x", "secret": "y"}}), "unknown_key", "unknown key 'secrt'"),
            (http(headers={"A": {"secret": "x" * 201}}), "out_of_range",
             "'secret' takes a string of 1 to 200 characters, not a string of 201 characters"),
            (line(text("n", "x", on_error="bar")), "invalid_value",
             "'on_error' takes 'fail' or an object {\"default\": …}, not 'bar'"),
            (line(text("n", "x", on_error={"default": 1})), "wrong_type", "'default' takes an object, not 1"),
            (line(text("n", "x", timeout_s=0)), "out_of_range",
             "'timeout_s' takes a number above 0 and at most 86400, not 0"),
            (line(text("n", "x", retry={"on": "timeout"})), "wrong_type",
             "'on' takes a list, each 'rate_limit', 'timeout' or 'server_error', not 'timeout'"),
            (line(text("n", "x", join=None)), "wrong_type", "'join' takes 'all' or 'any', not null"),
            (line(text("N", "x")), "invalid_value",
             "'id' takes a string of at most 64 characters that matches ^[a-z][a-z0-9_]*$, not 'N'"),
            (line(output="x") | {"state": {"S": {"type": "string"}}}, "invalid_value",
             "'S' is no key here: a key is a string of at most 64 characters that matches ^[a-z][a-z0-9_]*$"),
            (line(output="x") | {"state": {"s": None}}, "wrong_type",
             "'s' takes an object {\"type\": …}, not null"),
            (None, "wrong_type", "an agent is an object, not null"),
            ([True], "wrong_type", "an agent is an object, not [true]"),
        ],
        ids=lambda part: part if isinstance(part, str) and " " not in part else "",
    )  # fmt: skip
    def test_name_field_value_and_choices(self, document: Any, code: str, message: str) -> None:
        issue = only(document)
        assert (issue.code, issue.message) == (code, message)

    def test_a_choice_that_was_nearly_made_is_the_remedy(self) -> None:
        search = with_config("retrieve", collection="kb", query="x", mode="hybird")
        assert only(search).fix == "did you mean 'hybrid'? valid: 'hybrid', 'dense', 'keyword'"

    def test_each_wrong_item_is_named_and_the_list_is_not_called_too_short(self) -> None:
        found = issues(http(expect_status=[1000, "6xx"]))
        assert [issue.pointer.rpartition("/")[2] for issue in found] == ["0", "1"]

    def test_a_header_that_is_nearly_right_is_not_called_wrong_altogether(self) -> None:
        assert codes(http(headers={"A": "{{ x"})) == ["invalid_reference"]


def broken_nodes(kind: str) -> Iterator[dict[str, Any]]:
    """A valid node of the type with each of its places in turn, also those it leaves out, made wrong."""
    schema = node_model(NODE_TYPES[kind]).model_json_schema()
    whole = node("n", kind, config_of(NODE_TYPES[kind]))
    policies = kind == "template"  # the same for all
    for place, filled in places(schema, whole, schema["$defs"]):
        if place[0] in ("id", "type") or (place[0] != "config" and not policies):
            continue
        for wrong in WRONG:
            yield put(filled, place, wrong)


def places(schema: Any, value: Any, definitions: Any) -> Iterator[tuple[Place, Any]]:
    """Every place of a value that a schema knows, and the value with that place filled."""
    if reference := schema.get("$ref"):
        yield from places(definitions[reference.rpartition("/")[2]], value, definitions)
    for choice in [*schema.get("anyOf", ()), *schema.get("oneOf", ())]:
        if choice.get("type") != "null":
            yield from places(choice, sample(choice, definitions), definitions)
    for name, below in inner(schema).items():
        here = dict(value) if isinstance(value, dict) else {}
        content = here.get(name, sample(below, definitions))
        yield (name,), here | {name: content}
        for place, filled in places(below, content, definitions):
            yield (name, *place), here | {name: filled}
    if "items" in schema:
        content = sample(schema["items"], definitions)
        yield (0,), [content]
        for place, filled in places(schema["items"], content, definitions):
            yield (0, *place), [filled]


def inner(schema: Any) -> dict[str, Any]:
    """The keys that an object has, or one that it may have, with their schemas."""
    others = schema.get("additionalProperties")
    known: dict[str, Any] = schema.get("properties", {})
    if not isinstance(others, dict):
        return known
    return {schema.get("propertyNames", {}).get("enum", ["any-name"])[0]: others} | known


def put(whole: Any, place: Place, wrong: Any) -> Any:
    made = here = copy.deepcopy(whole)
    for step in place[:-1]:
        here = here[step]
    here[place[-1]] = wrong
    return made


def foreign(found: list[Issue]) -> list[str]:
    """What is said in words of Python, but for mistakes in expressions, which are Python."""
    said = [f"{issue.message} | {issue.fix}" for issue in found if issue.code != "invalid_expression"]
    return [words for words in said if FOREIGN.search(words)]


@pytest.mark.parametrize("kind", NODE_TYPES)
def test_no_issue_of_a_node_speaks_of_what_reads_it(kind: str) -> None:
    broken = list(broken_nodes(kind))
    assert len(broken) >= len(WRONG)
    found = [issue for one in broken for issue in issues(graph(one, edges=["start > n"]))]
    assert foreign(found) == []
    assert {issue.code for issue in found} >= {"wrong_type", "unknown_key"}


@pytest.mark.parametrize(
    "part", ["interface", "state", "bindings", "edges", "durability", "inputs", "layout"]
)
def test_no_issue_of_another_part_does(part: str) -> None:
    schema = AgentGraph.model_json_schema()
    whole = line(output="x") | {"state": {"any_name": {"type": "string"}}}
    within = {**schema, "properties": {part: schema["properties"][part]}}
    broken = [
        put(filled, place, wrong)
        for place, filled in places(within, whole, schema["$defs"])
        for wrong in WRONG
    ]
    assert len(broken) >= len(WRONG)
    assert foreign([issue for one in broken for issue in issues(one)]) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": None}, {"type": [None, True]}, {"properties": None}, {"properties": [True]},
        {"required": None}, {"required": [None]}, {"properties": {"a": None}},
        {"properties": {"a": {"enum": None}}},
        {"properties": {"a": {"minimum": True}}}, {"additionalProperties": None}, {"$schema": None},
    ],
)  # fmt: skip
def test_no_issue_of_a_json_schema_does(wrong: dict[str, Any]) -> None:
    found = issues(line(output="x") | {"inputs": {"type": "object", **wrong}})
    assert found
    assert foreign(found) == []


@pytest.mark.parametrize(
    ("schema", "value", "message"),
    [
        ({"type": "string"}, None, "null is not of type 'string'"),
        ({"type": ["string", "null"]}, True, "true is not of type 'string', 'null'"),
        ({"enum": ["a", None]}, {"b": False}, "{\"b\": false} is not one of 'a', null"),
        ({"const": True}, 1, "1 is not true"),
        ({"anyOf": [{"type": "string"}]}, [None], "[null] is not valid under any of the given schemas"),
        ({"required": ["q"]}, {}, "'q' is a required property"),
    ],
)
def test_an_input_that_does_not_fit_is_told_in_json(schema: dict[str, Any], value: Any, message: str) -> None:
    assert [error.message for error in errors_of(schema, value)] == [message]
