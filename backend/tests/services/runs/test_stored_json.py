"""JSON as PostgreSQL takes it."""

import json
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.embedded import Services
from app.services.runs.stored_json import as_stored, stored_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=10,
)


@pytest.fixture(scope="module")
def database(services: Services) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(services.database_url) as connection:
        yield connection


def refuse(constant: str) -> None:
    raise AssertionError(constant)


class TestStoredJson:
    @given(ANY_JSON)
    def test_holds_nothing_that_jsonb_refuses(self, value: object) -> None:
        text = json.dumps(json.loads(stored_json([value]) or "", parse_constant=refuse), ensure_ascii=False)
        text.encode()
        assert "\\u0000" not in text.replace("\\\\", "")

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    def test_leaves_good_text_as_it_is(self, text: str) -> None:
        assert json.loads(stored_json({"t": text}) or "") == {"t": text}

    def test_of_nothing_is_the_null_of_sql(self) -> None:
        assert stored_json(None) is None

    def test_replaces_only_what_is_bad(self) -> None:
        assert json.loads(stored_json(["a\x00", "\ud800", "👍", "NaN", float("nan")]) or "") == [
            "a\ufffd",
            "\ufffd",
            "👍",
            "NaN",
            None,
        ]


class TestAsStored:
    @given(value=ANY_JSON)
    def test_is_what_the_database_gives_back(self, database: psycopg.Connection[Any], value: object) -> None:
        (read,) = database.execute("SELECT CAST(%s AS jsonb)", [stored_json([value])]).fetchone() or ()
        assert json.dumps(as_stored([value])) == json.dumps(read)

    def test_puts_short_keys_first(self) -> None:
        assert list(as_stored({"bb": 1, "c": 2, "ä": 3, "a": 4})) == ["a", "c", "bb", "ä"]
