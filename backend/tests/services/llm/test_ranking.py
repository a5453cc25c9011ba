from __future__ import annotations

import numpy as np

from app.services.llm.evidence import Evidence, Reading
from app.services.llm.ranking import fits
from app.services.llm.rendering import Candidate


def evidence(coverage: float, *, passage: int = 0, row: bool = False) -> Evidence:
    candidate = Candidate(passage, (0, 5), "Text.", "", row)
    return Evidence(candidate, bm25=0, coverage=coverage, terms=frozenset())


def fitting(*rows: tuple[Evidence, float], language: str | None = "en") -> bool:
    cosines = np.array([cosine for _, cosine in rows], np.float32)
    return fits(Reading(language, [one for one, _ in rows]), cosines)


class TestFits:
    def test_a_sentence_near_the_question_with_its_words(self) -> None:
        assert fitting((evidence(0.9), 0.6))

    def test_not_a_near_one_without_the_words(self) -> None:
        assert not fitting((evidence(0.1), 0.65))

    def test_not_the_words_in_something_far(self) -> None:
        assert not fitting((evidence(1), 0.1))

    def test_nearness_of_one_and_words_of_another_do_not_add_up(self) -> None:
        assert not fitting((evidence(0.1, passage=0), 0.65), (evidence(0.9, passage=1), 0.1))

    def test_a_near_neighbour_speaks_for_a_sentence(self) -> None:
        assert not fitting((evidence(0.6), 0.35), (evidence(0, passage=1), 0.6))
        assert fitting((evidence(0.6), 0.35), (evidence(0), 0.6))

    def test_rows_of_a_table_do_not(self) -> None:
        assert not fitting((evidence(0.6, row=True), 0.35), (evidence(0, row=True), 0.6))

    def test_outside_english_the_words_decide(self) -> None:
        assert fitting((evidence(0.5), 0.05), language="de")
        assert not fitting((evidence(0.2), 0.9), language="de")

    def test_pairs_of_characters_need_cover_less(self) -> None:
        assert fitting((evidence(0.2), 0.05), language="zh")

    def test_nothing_is_no_answer(self) -> None:
        assert not fitting()
