"""Orders of lists, and cursors into them."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Invalid
from app.core.ids import new_id
from app.core.paging import Order, Value, chosen_order, decode_cursor, encode_cursor

NEWEST = Order("created_at", descending=True)
KINDS = (datetime, UUID)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
VALUES = {
    datetime: st.datetimes(timezones=st.just(UTC)),
    int: st.integers(-(2**31), 2**31 - 1),
    str: TEXT,
    UUID: st.uuids(),
}


def place() -> list[Value]:
    return [datetime.now(UTC), new_id()]


def refusal(cursor: str, *, order: Order = NEWEST, scope: str = "", kinds: Sequence[type] = KINDS) -> str:
    """The code of the error that points at the cursor."""
    with pytest.raises(Invalid) as raised:
        decode_cursor(cursor, order, scope, kinds)
    (error,) = raised.value.errors
    assert error.pointer == "/query/cursor"
    return error.code


def made_of(content: object) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).decode()


class TestOrder:
    @pytest.mark.parametrize("sort", ["name", "-name", "created_at", "-created_at"])
    def test_reads_as_it_was_asked_for(self, sort: str) -> None:
        assert str(chosen_order(sort, keys=["name", "created_at"], usual="name")) == sort

    def test_is_the_usual_one_where_none_is_asked_for(self) -> None:
        assert chosen_order(None, keys=["created_at"], usual="-created_at") == NEWEST

    @pytest.mark.parametrize("sort", ["", "-", "size", "--name", "name ", "NAME", "name,created_at", "é"])
    def test_that_is_unknown_is_refused_with_the_valid_ones(self, sort: str) -> None:
        with pytest.raises(Invalid, match="'name', '-name', 'created_at', '-created_at'") as raised:
            chosen_order(sort, keys=["name", "created_at"], usual="name")
        assert raised.value.errors[0].pointer == "/query/sort"


class TestCursor:
    @given(st.data(), st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=4))
    def test_gives_back_its_place(self, data: st.DataObject, kinds: list[type]) -> None:
        values: list[Value] = [data.draw(VALUES[kind]) for kind in kinds]  # type: ignore[arg-type]
        assert decode_cursor(encode_cursor(NEWEST, "scope", values), NEWEST, "scope", kinds) == values

    def test_fits_into_a_url_as_it_is(self) -> None:
        for _ in range(200):
            assert encode_cursor(NEWEST, "", place()).replace("-", "").replace("_", "").isalnum()

    def test_of_another_sort_is_refused_with_both(self) -> None:
        cursor = encode_cursor(Order("name"), "", ["Ada", new_id()])
        with pytest.raises(Invalid, match=r"'name', not by '-created_at'"):
            decode_cursor(cursor, NEWEST, "", KINDS)
        assert refusal(cursor) == "cursor_mismatch"

    def test_of_other_filters_is_refused(self) -> None:
        assert refusal(encode_cursor(NEWEST, "status=ready", place())) == "cursor_mismatch"

    @pytest.mark.parametrize(
        "cursor", ["", "x", "ä", "!!!!", "a" * 500, "01a20343-2636-74ee-ace2-7c4023a5f6c9", "\x00", "AAAA"]
    )
    def test_of_somebody_else_is_refused(self, cursor: str) -> None:
        assert refusal(cursor) == "invalid_cursor"

    @pytest.mark.parametrize(
        "content",
        [None, 7, "x", {}, [], ["-created_at"], [1, 2], [None, None], [["-created_at"], ""]],
    )
    def test_of_another_shape_is_refused(self, content: object) -> None:
        assert refusal(made_of(content)) == "invalid_cursor"

    @pytest.mark.parametrize(
        ("kind", "value"),
        [
            (datetime, "yesterday"),
            (datetime, "2026-01-01T00:00:00"),
            (datetime, "2026-01-01T00:00:00+02:00"),
            (datetime, 7),
            (UUID, "x"),
            (UUID, None),
            (int, 2**31),
            (int, True),
            (int, 1.5),
            (int, "1"),
            (str, "a\0b"),
            (str, "\ud800"),
            (str, ["a"]),
        ],
    )
    def test_with_a_value_that_no_column_takes_is_refused(self, kind: type, value: object) -> None:
        ours = json.loads(urlsafe_b64decode(encode_cursor(NEWEST, "", []) + "=="))
        assert refusal(made_of([*ours, value]), kinds=[kind]) == "invalid_cursor"

    @given(st.binary(max_size=60) | TEXT.map(str.encode))
    def test_is_refused_or_ours(self, raw: bytes) -> None:
        refusal(urlsafe_b64encode(raw).decode())

    @given(st.text(max_size=60))
    def test_of_any_text_is_refused(self, cursor: str) -> None:
        refusal(cursor)

    @given(st.data())
    def test_with_one_character_changed_never_breaks(self, data: st.DataObject) -> None:
        cursor = encode_cursor(NEWEST, "", place())
        index = data.draw(st.integers(0, len(cursor) - 1))
        changed = cursor[:index] + data.draw(st.characters()) + cursor[index + 1 :]
        try:
            values = decode_cursor(changed, NEWEST, "", KINDS)
        except Invalid:
            return
        assert [type(value) for value in values] == list(KINDS)
