"""Identifiers: ordered by time, or the same for the same input."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.core.ids import new_id, stable_id


class TestNewId:
    def test_is_a_uuid7(self) -> None:
        assert new_id().version == 7

    def test_sorts_after_all_that_were_made_before(self) -> None:
        made = [new_id() for _ in range(5000)]
        assert made == sorted(made)
        assert len(set(made)) == len(made)


class TestStableId:
    def test_is_the_same_on_every_machine(self) -> None:
        assert stable_id("a", 1) == UUID("8c781b09-843f-5b29-be90-f88c898005f2")

    @given(st.lists(st.text("ab\x1f,1 ", max_size=3), min_size=2, max_size=2))
    def test_tells_apart_where_one_part_ends(self, parts: list[str]) -> None:
        first, second = parts
        if "\x1f" not in first + second:
            assert (stable_id(first, second) == stable_id(first + second, "")) == (second == "")
