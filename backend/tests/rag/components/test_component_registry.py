"""Components register by type name."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import TypeAdapter, ValidationError

from app.rag.components import chunker, parser
from app.rag.pipeline.component import component, components


class TestComponent:
    def test_lists_what_was_imported(self) -> None:
        assert components()["chunker.sentence"] is chunker.SentenceChunker
        assert components()["parser.pdf"] is parser.PdfParser

    def test_a_duplicate_name_fails_and_names_the_first(self) -> None:
        @dataclass(frozen=True, slots=True)
        class Other:
            pass

        with pytest.raises(ValueError, match=r"'parser\.pdf' is already .*PdfParser"):
            component("parser.pdf")(Other)

    def test_a_class_that_could_change_is_refused(self) -> None:
        @dataclass
        class Mutable:
            pass

        with pytest.raises(TypeError, match="frozen, slotted"):
            component("test.mutable")(Mutable)
        assert "test.mutable" not in components()

    def test_the_list_cannot_be_changed(self) -> None:
        with pytest.raises(TypeError):
            components()["x"] = object  # type: ignore[index]


class TestSettings:
    def test_defaults_are_those_of_the_default_pipeline(self) -> None:
        assert chunker.SentenceChunker() == chunker.SentenceChunker(max_tokens=256, overlap=32)

    @pytest.mark.parametrize(
        "config", [{"max_tokens": 4}, {"max_tokens": 99_999}, {"overlap": 300}, {"overlap": -1}]
    )
    def test_a_senseless_number_is_a_validation_error(self, config: dict[str, int]) -> None:
        with pytest.raises(ValidationError):
            TypeAdapter(chunker.SentenceChunker).validate_python(config)

    def test_tables_know_one_form(self) -> None:
        adapter = TypeAdapter(parser.AutoParser)
        assert adapter.validate_python({"tables": "markdown"}) == parser.AutoParser()
        with pytest.raises(ValidationError):
            adapter.validate_python({"tables": "html"})
