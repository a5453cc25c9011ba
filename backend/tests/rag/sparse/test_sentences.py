from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.rag.sentences import sentences


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in sentences(text)]


class TestProse:
    @pytest.mark.parametrize(
        "parts",
        [
            ["Dr. Smith went to Washington, D.C. in 1990.", "He paid $3.50 (approx. 4 euros)."],
            ['"Why?" he asked.', '"Because."', "Then he left."],
            ["See Fig. 3 and No. 5.", "J. R. R. Tolkien wrote it."],
            ["It was at 5 p.m.", "We left!", "Really?!", "Yes... or no."],
            ["Version 2.0.1 is out.", "Visit example.com.", "Go."],
            ["The answer is 42.[3]", "Another one.[4]"],
            ["Erasmus (c. 1455–1536) wrote in Latin.", "The U.S. Army did not."],
            ["In Brown v. Board of Education the court ruled.", "It was unanimous."],
            ["Das geschah am 3. Oktober 1990.", "Im 19. Jahrhundert war das z. B. anders.", "Ende."],
            ["¿Dónde está?", "¡Aquí!", "«Bien», dijo."],
        ],
    )
    def test_is_cut_where_sentences_end(self, parts: list[str]) -> None:
        assert cut(" ".join(parts)) == parts

    def test_wrapped_lines_belong_together(self) -> None:
        text = "This sentence goes on\nin the next line of the\nparagraph. This is another."
        assert cut(text) == ["This sentence goes on\nin the next line of the\nparagraph.", "This is another."]

    @pytest.mark.parametrize(
        "parts",
        [
            ["東京は首都です。", "人口は多い！", "「本当？」と聞いた。"],
            ["运费由客户承担。", "客服电话是12345678。"],
            ["مرحبا؟", "نعم."],
            ["यह हिन्दी है।", "दूसरा वाक्य।"],
        ],
    )
    def test_other_scripts_have_their_own_marks(self, parts: list[str]) -> None:
        assert cut(" ".join(parts)) == parts
        if parts[0][-1] == "。":
            assert cut("".join(parts)) == parts


class TestLayout:
    def test_a_heading_stands_alone(self) -> None:
        assert cut("# Refunds\nWe pay within days.") == ["# Refunds", "We pay within days."]

    def test_so_does_a_short_line_before_a_capital(self) -> None:
        assert cut("Refund policy\nWe pay within thirty days.") == [
            "Refund policy",
            "We pay within thirty days.",
        ]

    def test_table_rows_are_sentences(self) -> None:
        rows = ["| Plan | Price |", "|---|---|", "| Pro | $20. Cheap. |"]
        assert cut("\n".join([*rows, "After it."])) == [*rows, "After it."]

    def test_a_list_item_stays_whole(self) -> None:
        items = ["- First. With two.", "- Second\n  going on", "3. Third"]
        assert cut("\n".join(items)) == items

    def test_a_long_list_item_is_cut_like_prose(self) -> None:
        assert len(cut("- " + "This is a sentence of the item. " * 20)) == 20

    def test_lines_of_code_are_sentences(self) -> None:
        assert cut("```\nx = 1. \ny = 2\n```\nDone.") == ["```", "x = 1.", "y = 2", "```", "Done."]

    def test_fields_are_sentences(self) -> None:
        assert cut("Name: Ada\nCity: London") == ["Name: Ada", "City: London"]

    def test_page_numbers_are_not_drawn_into_the_text(self) -> None:
        assert cut("The end\nPage 3 of 10\nof the line.") == ["The end", "Page 3 of 10", "of the line."]


class TestOffsets:
    @given(st.text(alphabet=st.sampled_from("aB1 .!?。」\n-|#*`\t:[]é猫"), max_size=120))
    @example("- a\n\n  b. C\n```\nx\n")
    @example("\x0c.\u2028A")
    def test_cover_all_but_white_space_once_and_in_order(self, text: str) -> None:
        spans = sentences(text)
        assert all(start < end for start, end in spans)
        assert all(one[1] <= other[0] for one, other in pairwise(spans))
        assert all(text[start:end].strip() == text[start:end] for start, end in spans)
        inside = {place for start, end in spans for place in range(start, end)}
        assert all(character.isspace() or place in inside for place, character in enumerate(text))

    def test_nothing_gives_nothing(self) -> None:
        assert sentences("") == sentences(" \n\t ") == []


class TestHostileText:
    @pytest.mark.parametrize(
        "text",
        [
            "." * 10**5 + "x",
            "e.g. " * 10**5,
            "- " * 10**5,
            "-" * 10**5 + "x",
            "|" * 10**5,
            '. "' * 10**5,
            "a\n" * 10**5,
        ],
    )
    def test_takes_linear_time(self, text: str) -> None:
        before = time.perf_counter()
        sentences(text)
        assert time.perf_counter() - before < 5
