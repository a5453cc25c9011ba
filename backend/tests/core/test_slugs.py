"""Slugs: made of names, checked, never taken for ids."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.constants import SLUG_PATTERN
from app.core.errors import Invalid
from app.core.slugs import as_uuid, check_slug, slugify

UUID_TEXT = "a0000000-0000-7000-8000-000000000000"


class TestSlugify:
    @pytest.mark.parametrize(
        ("name", "slug"),
        [
            ("Team Handbook", "team-handbook"),
            ("  Größe & Maß  ", "groe-ma"),
            ("2026 Plans", "plans"),
            ("Team 2", "team-2"),
            ("a---b", "a-b"),
            ("Café №5", "cafe-no5"),
        ],
    )
    def test_keeps_what_can_be_read(self, name: str, slug: str) -> None:
        assert slugify(name) == slug

    @pytest.mark.parametrize("name", ["", "日本語", "!!!", "7", "a", UUID_TEXT])
    def test_says_that_a_slug_is_needed_where_none_can_be_made(self, name: str) -> None:
        with pytest.raises(Invalid) as raised:
            slugify(name)
        assert raised.value.errors[0].pointer == "/body/slug"

    @given(st.text(max_size=200))
    def test_makes_a_valid_slug_or_says_no(self, name: str) -> None:
        try:
            slug = slugify(name)
        except Invalid:
            return
        assert check_slug(slug) == slug
        assert re.fullmatch(SLUG_PATTERN, slug)


class TestCheckSlug:
    @pytest.mark.parametrize(
        "slug", ["A", "-a", "a", "1a", "a_b", "a b", "a\n", "ab\n", "a" * 64, UUID_TEXT, "ä-b", "ab\u0660"]
    )
    def test_refuses(self, slug: str) -> None:
        with pytest.raises(Invalid, match="not a slug"):
            check_slug(slug)

    def test_refuses_what_would_be_read_as_an_id(self) -> None:
        assert as_uuid(UUID_TEXT.replace("-", "")) is not None
        with pytest.raises(Invalid):
            check_slug(UUID_TEXT.replace("-", ""))

    def test_takes_63_characters(self) -> None:
        assert check_slug("a" * 63) == "a" * 63
