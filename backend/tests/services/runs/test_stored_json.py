"""JSON as PostgreSQL takes it."""

import json

from hypothesis import given
from hypothesis import strategies as st

from app.services.runs.stored_json import storable, stored_json

ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner),
    max_leaves=10,
)


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

    @given(ANY_JSON)
    def test_is_what_storable_says(self, value: object) -> None:
        finite = json.loads(stored_json([value]) or "")
        assert json.loads(json.dumps(storable([value])), parse_constant=lambda _: None) == finite

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
