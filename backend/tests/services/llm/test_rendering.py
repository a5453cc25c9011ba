from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.services.llm.rendering import candidates, clean
from tests.services.llm.chat_model_conformance import passage


def texts(text: str) -> list[str]:
    return [candidate.text for candidate in candidates([passage(text)])]


class TestClean:
    @pytest.mark.parametrize(
        ("raw", "text"),
        [
            ("See **below** for [details](http://x.example/y).[3]", "See below for details."),
            ("wrapped\nin two lines", "wrapped in two lines."),
            ("infor-\nmation is free.", "information is free."),
            ("- an item", "an item."),
            ("Costs a) little (b) much", "Costs a) little (b) much."),
            ("2 * 3 * 4 = 24.", "2 * 3 * 4 = 24."),
            ("![logo](a.png) The shop.", "The shop."),
        ],
    )
    def test_leaves_the_words_and_takes_the_markup(self, raw: str, text: str) -> None:
        assert clean(raw) == text


class TestCandidates:
    @pytest.mark.parametrize(
        "furniture",
        [
            "# A heading",
            "Page 3 of 10",
            "Refunds ........ 12",
            "© 2024 Acme Inc.",
            "---",
            "42",
            "All rights reserved.",
        ],
    )
    def test_leave_out_what_is_not_a_sentence(self, furniture: str) -> None:
        assert texts(f"{furniture}\n\nRefunds are paid within days.") == ["Refunds are paid within days."]

    def test_leave_out_code_without_an_introduction(self) -> None:
        assert texts("```\nfoo = bar(1, 2, 3)\n```\n\nThat was code.") == ["That was code."]

    def test_know_the_heading_above_them(self) -> None:
        found = candidates([passage("Intro of all.\n\n## Paying\n\nWe take cards.", title="shop_rules.pdf")])
        assert [one.heading for one in found] == ["shop rules", "Paying"]

    def test_a_row_without_visible_head_is_its_cells(self) -> None:
        assert texts("| Pro | $20 | 5 seats |") == ["Pro; $20; 5 seats."]

    def test_cells_between_tabs_are_a_row_too(self) -> None:
        assert texts("Pro\t$20\t5 seats") == ["Pro; $20; 5 seats."]

    def test_a_text_without_sentence_ends_is_cut_into_readable_pieces(self) -> None:
        pieces = texts("one more word, and " * 200)
        assert len(pieces) > 1
        assert max(map(len, pieces)) <= 501

    def test_ideographs_count_as_words(self) -> None:
        assert texts("客服电话是12345678。") == ["客服电话是12345678。"]

    @given(st.text(alphabet=st.sampled_from("aB1 .!?:。\n-|#*`\t[]é猫"), max_size=150))
    def test_always_lie_in_their_passage_and_say_something(self, text: str) -> None:
        for candidate in candidates([passage(text)]):
            start, end = candidate.span
            assert 0 <= start < end <= len(text)
            assert candidate.text.strip()
