"""`docs/graphs.md`: it names all there is and nothing else, and its examples are compiled and run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from app.agent.core.base import ERROR, NODE_TYPES, NodeConfig, NodeType
from app.agent.core.interfaces import Citation, Passage, Session
from app.agent.graph import limits
from app.agent.graph.code_rules import MAX_CODE, MODULES
from app.agent.graph.expression_rules import FUNCTIONS, MAX_EXPRESSION
from app.agent.graph.issues import IssueCode
from app.agent.graph.policies import RESERVED, CachePolicy, Node, RetryPolicy
from app.agent.graph.references import MAX_RENDERED
from app.agent.graph.schema import AgentGraph, Bindings, Edge, Interface, StateField, node_model
from app.cli.setting_names import unknown_settings
from app.core.config import Settings
from app.core.expressions import ExpressionLimits, open_expressions
from app.core.report import Severity
from app.core.sandbox.code import CodeLimits, open_code
from tests.agent.documents import issues
from tests.agent.doubles import Bench
from tests.agent.samples import config_of

PAGE = (Path(__file__).parents[3] / "docs" / "graphs.md").read_text()
BLOCKS = [json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)]
GRAPHS = [block for block in BLOCKS if "schema_version" in block]
NODES = [block for block in BLOCKS if "schema_version" not in block]
RUNS = [
    (json.loads(graph), json.loads(given), json.loads(output))
    for graph, said in re.findall(r"^```json\n([^`]*?)^```\n\n((?:Input `.*\n)+)", PAGE, re.MULTILINE)
    for given, output in re.findall(r"^Input `(.*)` gives `(.*)`\.$", said, re.MULTILINE)
]
_IDENTITY = {"id", "type", "config"}


def section(heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]


def rows(heading: str, mark: str = "") -> dict[str, str]:
    """The names in the first column of a section's table, with what is said of them."""
    return dict(re.findall(rf"^\| {mark}`([\w.]+)` \| (.*) \|$", section(heading), re.MULTILINE))


def shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


class TestTables:
    @pytest.mark.parametrize(
        ("heading", "model"),
        [
            ("The document", AgentGraph),
            ("Interface", Interface),
            ("State", StateField),
            ("Bindings", Bindings),
            ("Nodes and edges", Edge),
        ],
    )
    def test_have_every_key(self, heading: str, model: type[BaseModel]) -> None:
        assert set(rows(heading)) == set(model.model_fields)
        for name, said in rows(heading).items():
            assert said.startswith("required") == model.model_fields[name].is_required(), name

    def test_have_every_policy(self) -> None:
        nested = {"retry": RetryPolicy, "cache": CachePolicy}
        names = [*(set(Node.model_fields) - _IDENTITY)]
        names += [f"{key}.{name}" for key, model in nested.items() for name in model.model_fields]
        assert set(rows("Policies")) == set(names)

    @pytest.mark.parametrize("name", RetryPolicy.model_fields)
    def test_say_the_defaults_of_retry(self, name: str) -> None:
        said, default = rows("Policies")[f"retry.{name}"], RetryPolicy.model_fields[name].default
        for part in default if isinstance(default, tuple) else [default]:
            assert shown(part) in said

    @pytest.mark.parametrize("kind", NODE_TYPES.values(), ids=lambda kind: kind.name)
    class TestOfNodeTypes:
        def test_have_every_field(self, kind: NodeType) -> None:
            fields = kind.config.model_fields
            said = rows(f"`{kind.name}`")
            assert set(said) == set(fields)
            for name, field in fields.items():
                assert said[name].startswith("required") == field.is_required(), name
                default = field.get_default(call_default_factory=True)
                if not field.is_required() and default is not None and default != {} and name != "method":
                    assert shown(default) in said[name], name

        def test_have_every_output(self, kind: NodeType) -> None:
            assert set(rows(f"`{kind.name}`", "→ ")) == set(kind.outputs)

        def test_say_effect_and_handles(self, kind: NodeType) -> None:
            about = " ".join(section(f"`{kind.name}`").split("|")[0].split())
            assert f"Effect `{kind.effect.value}`" in about
            assert ("cannot fail" in about) is not kind.fails
            assert (f"`{ERROR}`" in about) is kind.fails
            if kind.config.handles is NodeConfig.handles:
                assert "`out`" in about
            else:
                own = kind.config.model_validate(config_of(kind)).handles()[-1:]
                assert all(f"`{handle}`" in about for handle in own)

    def test_no_section_is_about_a_type_that_is_not_there(self) -> None:
        assert re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE) == [
            name for name in re.findall(r"^### `(\w+)`$", PAGE, re.MULTILINE) if name in NODE_TYPES
        ]

    def test_shapes_of_passages_citations_and_sessions(self) -> None:
        for shape, said in (
            (Passage, rows("`retrieve`", "→ ")["results"]),
            (Citation, rows("`llm`", "→ ")["citations"]),
            (Session, section("References")),
        ):
            assert all(f"`{name}`" in said for name in shape.__dataclass_fields__)


class TestNames:
    @pytest.mark.parametrize("code", IssueCode)
    def test_every_issue_with_its_severity(self, code: IssueCode) -> None:
        errors, _, warnings = section("What validation says").partition("**Warnings**")
        assert f"`{code.value}`" in (warnings if code.severity is Severity.WARNING else errors)

    @pytest.mark.parametrize("name", FUNCTIONS)
    def test_every_function_of_expressions(self, name: str) -> None:
        assert f"`{name}`" in section("Expressions")

    @pytest.mark.parametrize("name", MODULES)
    def test_every_module_of_code(self, name: str) -> None:
        assert f"`{name}`" in section("`code`")

    @pytest.mark.parametrize("name", sorted(RESERVED))
    def test_every_reserved_id(self, name: str) -> None:
        assert f"`{name}`" in section("Nodes and edges")

    @pytest.mark.parametrize(
        "number",
        [
            limits.MAX_NODES, limits.MAX_EDGES, limits.MAX_FAN_OUT, limits.MAX_ENDS, limits.MAX_VALUES,
            limits.MAX_TEXT, limits.MAX_DEPTH, MAX_RENDERED,
        ],
    )  # fmt: skip
    def test_every_limit(self, number: int) -> None:
        assert f" {number:,} " in section("Limits").replace("\n", " ").replace("(", " ")

    def test_the_length_of_expressions(self) -> None:
        assert f"{MAX_EXPRESSION:,} characters" in section("Expressions")

    def test_the_length_of_code(self) -> None:
        assert f"{MAX_CODE:,} characters" in section("`code`")

    def test_settings_with_their_defaults(self) -> None:
        named = re.findall(r"`(ORRERY_[A-Z_]+)`[ ,\n]+\(?([\d,.]+\d)\)", PAGE)
        assert {name for name, _ in named} == set(re.findall(r"ORRERY_[A-Z_]+[A-Z]", PAGE))
        assert unknown_settings(dict.fromkeys((name for name, _ in named), "")) == {}
        for name, default in named:
            field = Settings.model_fields[name.removeprefix("ORRERY_").lower()]
            assert field.default == float(default.replace(",", ""))


class TestExamples:
    @pytest.mark.parametrize("graph", GRAPHS, ids=range(len(GRAPHS)))
    def test_compile_without_a_word(self, graph: dict[str, Any]) -> None:
        assert issues(graph) == []

    @pytest.mark.parametrize("node", NODES, ids=lambda node: node["type"])
    def test_nodes_are_sound(self, node: dict[str, Any]) -> None:
        kind = NODE_TYPES[node["type"]]
        node_model(kind).model_validate(node)
        assert list(kind.config.mistakes(node["config"])) == []

    @pytest.mark.parametrize(("graph", "given", "output"), RUNS, ids=range(len(RUNS)))
    async def test_give_what_they_are_said_to(
        self, graph: dict[str, Any], given: dict[str, Any], output: dict[str, Any]
    ) -> None:
        async with open_expressions(ExpressionLimits()) as expressions, open_code(CodeLimits()) as code:
            bench = Bench(graph, expressions=expressions, code=code)
            assert (await bench.given(given)).output == output

    def test_are_all_seen(self) -> None:
        assert PAGE.count("```json\n") == len(GRAPHS) + len(NODES)
        assert PAGE.count("\nInput `") == len(RUNS) >= len(GRAPHS)
