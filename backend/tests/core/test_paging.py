"""Cursors of pages."""

from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.errors import Invalid
from app.core.ids import new_id
from app.core.paging import decode_cursor, encode_cursor


class TestCursor:
    def test_gives_back_its_id(self) -> None:
        last = new_id()
        assert decode_cursor(encode_cursor(last)) == last

    def test_fits_into_a_url_as_it_is(self) -> None:
        for _ in range(200):
            assert encode_cursor(new_id()).replace("-", "").replace("_", "").isalnum()

    @pytest.mark.parametrize(
        "cursor", ["", "x", "ä", "!!!!", "a" * 500, "01a20343-2636-74ee-ace2-7c4023a5f6c9", "\x00", "AAAA"]
    )
    def test_of_somebody_else_is_refused_with_its_place(self, cursor: str) -> None:
        with pytest.raises(Invalid) as raised:
            decode_cursor(cursor)
        assert raised.value.errors[0].pointer == "/query/cursor"

    @given(st.binary(max_size=40))
    def test_is_an_id_or_refused(self, raw: bytes) -> None:
        cursor = urlsafe_b64encode(raw).decode()
        if len(raw) == 16:
            assert decode_cursor(cursor).bytes == raw
        else:
            with pytest.raises(Invalid):
                decode_cursor(cursor)
