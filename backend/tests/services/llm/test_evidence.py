from __future__ import annotations

import pytest

from app.services.llm.evidence import asked_terms, read
from tests.services.llm.chat_model_conformance import passage

TEXT = "Refunds are paid within thirty days. Parcels are sent from Hamburg. Our office is closed on Sundays."


class TestAskedTerms:
    def test_words_that_only_ask_are_left_out(self) -> None:
        assert asked_terms("When are the refunds paid?", "en") == ["refund", "paid"]

    @pytest.mark.parametrize("question", ["How long is the bridge?", "How quickly must the bridge open?"])
    def test_the_measure_asked_for_is_left_out(self, question: str) -> None:
        assert asked_terms(question, "en")[0] in {"bridg", "open"}

    def test_an_order_is_left_out_where_it_is_one(self) -> None:
        assert asked_terms("List the bridges", "en") == ["bridg"]
        assert asked_terms("What is the list price?", "en") == ["list", "price"]

    def test_may_is_a_verb_or_a_month(self) -> None:
        assert asked_terms("May I open the bridge?", "en") == ["open", "bridg"]
        assert "may" in asked_terms("Which bridge opens in May?", "en")

    def test_a_subject_after_how_stays(self) -> None:
        assert asked_terms("Explain how bridges open", "en") == ["bridg", "open"]

    def test_unless_there_are_no_others(self) -> None:
        assert asked_terms("Which one?", "en") == ["one"]
        assert asked_terms("How?", "en") == ["how"]


class TestRead:
    def test_the_best_sentence_has_a_bm25_of_one(self) -> None:
        evidence = read("When are refunds paid?", [passage(TEXT)]).evidence
        assert [one.bm25 for one in evidence] == [1, 0, 0]

    def test_coverage_is_whole_where_all_words_are_found(self) -> None:
        assert read("When are refunds paid?", [passage(TEXT)]).evidence[0].coverage == 1

    def test_coverage_is_less_for_each_word_missing(self) -> None:
        evidence = read("When are refunds for bicycles paid?", [passage(TEXT)]).evidence
        assert 0.4 < max(one.coverage for one in evidence) < 0.6

    def test_a_word_found_everywhere_covers_less_than_a_rare_one(self) -> None:
        text = "The library opens at nine. The library lends maps. The library closes at six."
        opens, closes, maps = (
            max(one.coverage for one in read(question, [passage(text)]).evidence)
            for question in ("library zebra", "closes zebra", "library maps")
        )
        assert opens < closes < maps == 1

    def test_neighbours_help_to_cover(self) -> None:
        evidence = read("refunds Sundays", [passage(TEXT)]).evidence
        assert [round(one.coverage, 1) for one in evidence] == [0.5, 1.0, 0.5]

    def test_rows_of_a_table_are_on_their_own(self) -> None:
        rows = "| City | Price |\n|---|---|\n| Rome | 5 |\n| Oslo | 9 |"
        assert [round(one.coverage) for one in read("Oslo", [passage(rows)]).evidence] == [0, 1]

    def test_nothing_in_common_is_no_evidence(self) -> None:
        evidence = read("zebra crossing", [passage(TEXT)]).evidence
        assert all(one.bm25 == one.coverage == 0 for one in evidence)

    def test_the_language_is_that_of_the_context(self) -> None:
        german = "Rücksendungen sind innerhalb von dreißig Tagen nach Erhalt der Ware möglich."
        assert read("refund?", [passage(german)]).language == "de"
