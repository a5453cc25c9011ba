"""YAML that we write is read back as the same document, by our parser and by others."""

from __future__ import annotations

from typing import Any

import pytest
import rfc8785
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from app.agent.graph.loading import load_document
from app.agent.graph.writing import to_yaml
from tests.agent.documents import full
from tests.agent.test_diff import DOCUMENTS

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.text(
    "\n\t :-#'\"|>{}ab1e.+", max_size=12
)
QUIET = settings(deadline=None)


class TestReadBack:
    @QUIET
    @given(DOCUMENTS | st.dictionaries(TEXT, TEXT, max_size=3))
    def test_is_the_same(self, document: dict[str, Any]) -> None:
        assert rfc8785.dumps(load_document(to_yaml(document))) == rfc8785.dumps(document)

    @pytest.mark.parametrize(
        "text", ["yes", "1e5", "0o7", "2026-01-01", "null", "~", "1_000", "=", "012", ""]
    )
    def test_keeps_a_text_that_looks_like_something_else(self, text: str) -> None:
        written = to_yaml({"a": text})
        assert load_document(written) == yaml.safe_load(written) == {"a": text}


class TestForm:
    def test_begins_with_what_the_document_begins_with(self) -> None:
        assert to_yaml(full()).startswith("schema_version: '1'\ninputs:\n")

    def test_shows_lines_as_lines(self) -> None:
        assert to_yaml({"text": "One.\nTwo.\n"}) == "text: |\n  One.\n  Two.\n"

    def test_repeats_what_is_there_twice(self) -> None:
        shared = {"type": "string"}
        assert "&" not in to_yaml({"a": shared, "b": shared})
