from __future__ import annotations

from collections import Counter

import bm25s
import pytest

from app.rag.sparse import dot, encode_document, encode_query, query_terms, term_id, tokenize

DOCUMENTS = [
    "Refunds are paid within thirty days of the return of the item.",
    "The parcel arrives within five working days; express parcels arrive the next day.",
    "A return label is sent by e-mail. Print the label and put it on the parcel.",
    "Items on sale are final: no refund, no return.",
    "Our office is closed on Sundays.",
]
QUERIES = ["refund of a returned item", "when does the parcel arrive", "label label label", "sunday", "zebra"]


class TestBm25:
    @pytest.mark.parametrize("query", QUERIES)
    def test_the_dot_product_is_the_score_of_bm25s(self, query: str) -> None:
        tokens = [tokenize(text, "en") for text in DOCUMENTS]
        reference = bm25s.BM25(k1=1.2, b=0.75)
        reference.index(tokens, show_progress=False)
        average = sum(map(len, tokens)) / len(tokens)
        documents = [encode_document(one, average_length=average) for one in tokens]
        frequencies = Counter(index for document in documents for index in document.indices)
        terms = query_terms(query, ["en"])
        encoded = encode_query(
            {term: frequencies[term] for term in terms}, document_count=len(tokens), counts=terms
        )
        scores = [dot(document, encoded) for document in documents]
        known = [term for term in tokenize(query, "en") if frequencies[term_id(term)]]
        expected = reference.get_scores(known) if known else [0.0] * len(tokens)
        assert scores == pytest.approx(list(expected), abs=1e-5)


class TestTermId:
    def test_is_murmur3_reduced(self) -> None:
        assert term_id("hello") == 613_153_351 % 999_999_999 + 1  # murmur3-32("hello"), seed 0

    def test_fits_a_sparse_column(self) -> None:
        assert all(1 <= term_id(str(number)) < 10**9 for number in range(10_000))


class TestEncodeDocument:
    def test_ids_ascend(self) -> None:
        indices = encode_document(tokenize(DOCUMENTS[1], "en"), average_length=8).indices
        assert list(indices) == sorted(set(indices))

    def test_a_text_of_average_length_has_known_weights(self) -> None:
        vector = encode_document(["a", "b", "b"], average_length=3)
        weights = dict(zip(vector.indices, vector.values, strict=True))
        assert weights == pytest.approx({term_id("a"): 1 / 2.2, term_id("b"): 2 / 3.2})

    def test_no_tokens_give_an_empty_vector(self) -> None:
        assert encode_document([], average_length=8).indices == ()

    def test_an_average_of_zero_is_refused(self) -> None:
        with pytest.raises(ValueError, match="average_length must be greater than 0, not 0"):
            encode_document(["a"], average_length=0)


class TestEncodeQuery:
    def test_rare_terms_weigh_more(self) -> None:
        rare, common = encode_query({1: 1, 2: 90}, document_count=100).values
        assert rare > common > 0

    def test_terms_that_occur_nowhere_are_left_out(self) -> None:
        assert encode_query({1: 0, 2: 3}, document_count=10).indices == (2,)

    def test_a_repeated_term_counts_twice(self) -> None:
        (once,) = encode_query({7: 2}, document_count=9).values
        (twice,) = encode_query({7: 2}, document_count=9, counts={7: 2}).values
        assert twice == 2 * once

    def test_a_frequency_ahead_of_the_count_is_harmless(self) -> None:
        assert encode_query({1: 12}, document_count=10).values[0] > 0


class TestQueryTerms:
    def test_reads_the_query_in_every_language_of_the_index(self) -> None:
        both = query_terms("Rücksendungen returning", ["de", "en"])
        assert set(both) == set(query_terms("Rücksendungen returning", ["de"])) | set(
            query_terms("Rücksendungen returning", ["en"])
        )

    def test_counts_a_term_once_however_many_languages_agree(self) -> None:
        assert query_terms("zebra", ["de", "en", None]) == {term_id("zebra"): 1}
