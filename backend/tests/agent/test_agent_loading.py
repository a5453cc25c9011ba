"""Text to document: YAML, JSON, and what they must not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from app.agent.graph.issues import InvalidGraph
from app.agent.graph.loading import load_document, load_graph

EXAMPLES = Path(__file__).parents[3] / "examples" / "agents"


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
