"""Identifiers: ordered by time, or the same for the same input."""

from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from app.core.ids import new_id, stable_id, uuid7_floor


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


class TestFloor:
    def test_lies_between_what_was_made_before_and_after(self) -> None:
        now = datetime.now(UTC)
        assert uuid7_floor(now - timedelta(seconds=1)) < new_id() < uuid7_floor(now + timedelta(seconds=1))

    def test_is_a_uuid7_of_the_moment_in_any_zone(self) -> None:
        moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
        elsewhere = moment.astimezone(timezone(timedelta(hours=9)))
        assert uuid7_floor(moment) == uuid7_floor(elsewhere)
        assert uuid7_floor(moment).version == 7
