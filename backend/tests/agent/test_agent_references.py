"""The reference syntax: what it parses to, what it renders, where it says it went wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from app.agent.graph.json_template import JsonTemplate
from app.agent.graph.references import Chain, Literal, Reference, Template, TemplateError, as_text, parse


class Known:
    """Values by the text of the first reference."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def value(self, chain: Chain) -> Any:
        return self._values[str(chain.references[0]).replace(".", "_")]


class TestParse:
    def test_a_path(self) -> None:
        assert parse("{{ search.results.0.title }}").chain == Chain(
            (Reference("search", ("results", "0", "title"), 3),)
        )

    def test_space_is_free(self) -> None:
        assert str(parse("{{a.b??c.d\n??  1 }}").chain) == "a.b ?? c.d ?? 1"

    @pytest.mark.parametrize(
        ("literal", "value"),
        [
            ('"a}}b"', "a}}b"),
            ("[]", []),
            ('{"a": {}}', {"a": {}}),
            ("null", None),
            ("-1.5e3", -1500.0),
            ("true", True),
        ],
    )
    def test_a_literal_ends_a_chain(self, literal: str, value: Any) -> None:
        chain = parse(f"{{{{ a ?? {literal} }}}}").chain
        assert chain == Chain((Reference("a", (), 3),), Literal(value))

    def test_four_braces_are_two(self) -> None:
        assert parse("a {{{{ b }} {{{{{{ c }}").text(Known(c=1)) == "a {{ b }} {{1"

    def test_braces_of_json_around_a_reference(self) -> None:
        assert parse('{"a": {{ x }}}').text(Known(x=3)) == '{"a": 3}'

    @pytest.mark.parametrize(
        ("source", "position", "message"),
        [
            ("ab {{ x", 3, "never closed"),
            ("{{ }}", 3, "a reference such as"),
            ("{{ x. }}", 5, "a name or an index"),
            ("{{ x y }}", 5, "expected '.', '??' or '}}'"),
            ("{{ x ?? }}", 8, "a reference or a JSON value"),
            ("{{ 1 }}", 3, "a constant needs no braces"),
            ("{{ x ?? 1 ?? y }}", 10, "after the constant"),
            ("{{ x ?? NaN. }}", 12, "a name or an index"),
            ("{{ x ?? -Infinity }}", 8, "a reference or a JSON value"),
            ("{{ x | upper }}", 5, "found '| upper }}'"),
            ("{{ x.__class__() }}", 14, "found '() }}'"),
            ("{{{ x }}}", 2, "found '{ x }}}'"),
        ],
    )
    def test_mistakes_have_a_position(self, source: str, position: int, message: str) -> None:
        with pytest.raises(TemplateError) as failure:
            parse(source)
        assert (failure.value.position, message in failure.value.message) == (position, True)

    @given(st.text(alphabet='{} x.?"1[]ab', max_size=30))
    def test_any_text_parses_or_says_where_it_does_not(self, source: str) -> None:
        try:
            parsed = parse(source)
        except TemplateError as error:
            place = error.position
        else:
            place = 0 if parsed.source == source else -1
        assert 0 <= place <= len(source)

    @given(st.text().filter(lambda source: "{{" not in source))
    def test_text_without_references_is_itself(self, source: str) -> None:
        assert parse(source).text(Known()) == source


class TestRender:
    def test_exactly_one_reference_keeps_its_type(self) -> None:
        assert parse("{{ x }}").value(Known(x=[1])) == [1]

    def test_space_around_it_makes_it_text(self) -> None:
        assert parse(" {{ x }}").value(Known(x=[1])) == " [1]"

    @pytest.mark.parametrize(
        ("value", "text"),
        [("a", "a"), (None, ""), (True, "true"), (1.5, "1.5"), ({"é": [1, None]}, '{"é": [1, null]}')],
    )
    def test_how_values_read_in_text(self, value: Any, text: str) -> None:
        assert as_text(value) == text

    def test_a_value_with_braces_is_not_read_again(self) -> None:
        assert parse("> {{ x }}").text(Known(x="{{ y }}")) == "> {{ y }}"


class TestInModels:
    def test_a_template_dumps_as_it_was_written(self) -> None:
        adapter = TypeAdapter(Template)
        assert adapter.dump_python(adapter.validate_python("a {{ b }}"), mode="json") == "a {{ b }}"

    def test_a_json_template_fills_every_depth(self) -> None:
        template = TypeAdapter(JsonTemplate).validate_python({"a": ["{{ x }}", {"b": "n{{ x }}"}], "c": 1})
        assert template.value(Known(x=2)) == {"a": [2, {"b": "n2"}], "c": 1}

    def test_a_json_template_dumps_as_it_was_written(self) -> None:
        adapter = TypeAdapter(JsonTemplate)
        source = {"a": ["{{ x }}", None]}
        assert adapter.dump_python(adapter.validate_python(source), mode="json") == source
