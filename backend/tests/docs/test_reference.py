"""`docs/reference` is what the code says, and each of its graphs is what its page says of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.agent.core.base import NODE_TYPES, NodeType
from app.agent.graph.issues import IssueCode
from app.agent.graph.loading import load_document
from scripts import generate_reference
from scripts.reference.codes import EXAMPLES, issues_of
from scripts.reference.nodes import example_graph

GRAPHS = [
    (path, text) for path, page in generate_reference.pages().items() for text in page.split("```yaml\n")[1:]
]


class TestPages:
    def test_are_what_the_code_says(self) -> None:
        assert generate_reference.outdated() == []
        assert generate_reference.main(["--check"]) == 0

    def test_an_old_a_missing_and_a_strange_page_are_seen_and_put_right(self, tmp_path: Path) -> None:
        generate_reference.write(tmp_path)
        assert generate_reference.outdated(tmp_path) == []
        (tmp_path / "codes" / "cycle.md").write_text("# Something else\n")
        (tmp_path / "events.md").unlink()
        (tmp_path / "nodes" / "telepathy.md").write_text("# `telepathy`\n")
        assert generate_reference.outdated(tmp_path) == ["codes/cycle.md", "events.md", "nodes/telepathy.md"]
        generate_reference.write(tmp_path)
        assert generate_reference.outdated(tmp_path) == []

    @pytest.mark.parametrize(("path", "text"), GRAPHS, ids=[path for path, _ in GRAPHS])
    def test_show_graphs_that_read_as_they_are_meant(self, path: str, text: str) -> None:
        shown: Any = text.partition("```")[0]
        found = issues_of(shown)
        if path.startswith("nodes/"):
            assert [issue.code for issue in found if issue.code != "unknown_secret"] == []
        else:
            assert {issue.code for issue in found} <= {Path(path).stem}


class TestCodes:
    def test_have_an_example_each(self) -> None:
        assert set(EXAMPLES) == set(IssueCode)

    @pytest.mark.parametrize("code", EXAMPLES)
    def test_are_found_in_their_graph_and_nothing_else(self, code: IssueCode) -> None:
        assert [issue.code for issue in issues_of(EXAMPLES[code].wrong)] == [code.value]

    @pytest.mark.parametrize("code", EXAMPLES)
    def test_nothing_is_wrong_once_it_is_put_right(self, code: IssueCode) -> None:
        assert issues_of(EXAMPLES[code].right) == []


@pytest.mark.parametrize("kind", NODE_TYPES.values(), ids=lambda kind: kind.name)
class TestNodeTypes:
    def test_have_an_example_that_compiles(self, kind: NodeType) -> None:
        assert kind.config.example or not kind.config_required
        assert [i.code for i in issues_of(example_graph(kind)) if i.code != "unknown_secret"] == []

    def test_shows_it_as_yaml_that_reads_back(self, kind: NodeType) -> None:
        page = generate_reference.pages()[f"nodes/{kind.name}.md"]
        shown = page.partition("## Example\n\n```yaml\n")[2].partition("```")[0]
        assert load_document(shown) == example_graph(kind)
