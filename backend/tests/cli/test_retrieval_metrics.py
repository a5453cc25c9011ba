"""Each value here is computed by hand from the definition."""

from __future__ import annotations

import math

import pytest

from app.cli.retrieval_metrics import ndcg, recall, reciprocal_rank

GRADES = {"a": 3, "b": 1, "c": 0}


class TestNdcg:
    def test_is_1_in_the_ideal_order(self) -> None:
        assert ndcg(["a", "b", "c"], GRADES, at=10) == 1

    def test_discounts_by_the_logarithm_of_the_rank(self) -> None:
        # b, x, a: 1/log2(2) + 3/log2(4) = 2.5; ideal: 3/log2(2) + 1/log2(3) = 3.6309…
        assert ndcg(["b", "x", "a"], GRADES, at=10) == pytest.approx(2.5 / (3 + 1 / math.log2(3)))

    def test_counts_nothing_below_the_cut(self) -> None:
        assert ndcg(["x", "y", "a"], GRADES, at=2) == 0

    def test_the_ideal_is_cut_too(self) -> None:
        assert ndcg(["a"], {"a": 1, "b": 1, "d": 1}, at=1) == 1

    def test_a_negative_grade_takes_nothing_away(self) -> None:
        assert ndcg(["n", "a"], {"a": 1, "n": -1}, at=10) == pytest.approx(1 / math.log2(3))

    def test_is_0_where_nothing_was_found(self) -> None:
        assert ndcg([], GRADES, at=10) == 0


class TestRecall:
    def test_is_the_share_of_relevant_documents(self) -> None:
        assert recall(["x", "b"], GRADES, at=100) == 0.5

    def test_a_document_graded_0_is_not_relevant(self) -> None:
        assert recall(["c"], GRADES, at=100) == 0

    def test_counts_nothing_below_the_cut(self) -> None:
        assert recall(["x", "a", "b"], GRADES, at=2) == 0.5


class TestReciprocalRank:
    def test_is_that_of_the_first_relevant_document(self) -> None:
        assert reciprocal_rank(["c", "x", "b", "a"], GRADES, at=10) == pytest.approx(1 / 3)

    def test_is_0_where_it_lies_below_the_cut(self) -> None:
        assert reciprocal_rank(["c", "x", "b"], GRADES, at=2) == 0
