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
            "STAFF GUIDE: ROME AND OSLO",
            "2. OPENING HOURS AND ACCESS",
            "3 Warranty and returns",
            "4.2 Lost parcels",
            "Acme Tools, handbook part 7.",
            "Handbook part XII.",
        ],
    )
    def test_leave_out_what_is_not_a_sentence(self, furniture: str) -> None:
        assert texts(f"{furniture}\n\nRefunds are paid within days.") == ["Refunds are paid within days."]

    @pytest.mark.parametrize(
        "content",
        [
            "DO NOT OPEN THE COVER.",
            "HOTLINE: +43 512 5550 190",
            "- USB, HDMI, VGA, DVI",
            "客服电话和ABC热线",
            "- Sale items are final",
            "The rules stand in part 7.",
            "Guided tours take place in",
        ],
    )
    def test_keep_what_only_looks_like_it(self, content: str) -> None:
        assert len(texts(f"{content}\n\nRefunds are paid within days.")) == 2

    def test_leave_out_the_title(self) -> None:
        found = candidates(
            [passage("Refunds: rules for all\n\nWe pay at once.", title="Refunds: rules for all")]
        )
        assert [one.text for one in found] == ["We pay at once."]

    def test_leave_out_lines_that_hold_the_title(self) -> None:
        text = "Acme Tools and Machines – Rules for Refunds – valid from 1 January 2026\n\nWe pay at once."
        found = candidates([passage(text, title="Rules for Refunds.pdf")])
        assert [one.text for one in found] == ["We pay at once."]

    def test_keep_a_sentence_that_is_the_title(self) -> None:
        found = candidates([passage("Refunds are paid at once.", title="Refunds are paid at once")])
        assert [one.text for one in found] == ["Refunds are paid at once."]

    def test_leave_out_lines_repeated_in_a_document(self) -> None:
        header = "- internal, for the staff of the workshop only"
        text = f"{header}\n\nWe pay at once.\n\n{header}\n\nWe ship on Mondays."
        assert texts(text) == ["We pay at once.", "We ship on Mondays."]

    def test_keep_a_line_that_two_overlapping_passages_share(self) -> None:
        line, before = "- the receipt and the serial number", "Please bring both."
        context = [passage(line, start=40), passage(f"{before}\n\n{line}", start=40 - len(before) - 2)]
        assert [one.text for one in candidates(context)] == ["the receipt and the serial number.", before]

    def test_keep_numbered_lines_that_follow_each_other(self) -> None:
        said = " ".join(texts("First some words.\n1 Open the lid\n2 Take out the lamp\n\nDone at last."))
        assert "Take out the lamp" in said

    def test_a_line_in_capitals_is_the_heading_of_what_follows(self) -> None:
        (one,) = candidates([passage("2. OPENING HOURS\n\nWe open at nine.")])
        assert one.heading == "OPENING HOURS"

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
