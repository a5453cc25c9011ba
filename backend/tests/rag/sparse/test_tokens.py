from __future__ import annotations

import re

import bm25s
import pytest
import Stemmer
from hypothesis import given
from hypothesis import strategies as st

from app.rag.sparse import tokenize

PROSE = (
    "The Panthers defense gave up just 308 points, ranking sixth in the league, while also leading the NFL "
    "in interceptions with 24; Addison added 6½ sacks. Claude for Sheets™ isn't running on C++ or Node.js!"
)


class TestEnglish:
    def test_words_are_stemmed_and_stop_words_dropped(self) -> None:
        assert tokenize("The refunds are processed in days", "en") == ["refund", "process", "day"]

    def test_agrees_with_bm25s(self) -> None:
        stemmer = Stemmer.Stemmer("english")
        (expected,) = bm25s.tokenize(
            [PROSE], stopwords="en", stemmer=stemmer, return_ids=False, show_progress=False
        )
        assert tokenize(PROSE, "en") == expected

    def test_an_identifier_is_found_whole_and_by_its_parts(self) -> None:
        assert tokenize("max_tokens", "en") == ["max_token", "max", "token"]

    def test_unknown_language_is_read_as_english(self) -> None:
        assert tokenize("the refunds", None) == tokenize("the refunds", "en")


class TestOtherLanguages:
    @pytest.mark.parametrize(
        ("language", "text", "terms"),
        [
            ("de", "Die Rücksendungen sind kostenlos", ["rucksend", "kostenlos"]),
            ("fr", "Les remboursements sont rapides", ["rembours", "rapid"]),
            ("ru", "Возвраты и доставка", ["возврат", "доставк"]),
            ("uk", "Повернення товару", ["повернення", "товару"]),
        ],
    )
    def test_are_stemmed_by_their_own_rules(self, language: str, text: str, terms: list[str]) -> None:
        assert tokenize(text, language) == terms

    def test_hindi_vowel_signs_do_not_cut_words(self) -> None:
        assert tokenize("नीति किताब", "xx") == ["नीति", "किताब"]

    @pytest.mark.parametrize(
        ("text", "terms"),
        [
            ("退货政策", ["退货", "货政", "政策"]),
            ("カメラ", ["カメ", "メラ"]),
            ("환불은", ["환불", "불은"]),
            ("使用API接口", ["使用", "api", "接口"]),
        ],
    )
    @pytest.mark.parametrize("language", ["zh", "en", None])
    def test_scripts_without_spaces_give_pairs(
        self, text: str, terms: list[str], language: str | None
    ) -> None:
        assert tokenize(text, language) == terms


class TestFolding:
    @pytest.mark.parametrize(
        ("text", "same"),
        [
            ("ﬁle", "file"),
            ("ＡＰＩ", "api"),
            ("STRASSE", "straße"),
            ("cafe\u0301", "café"),
            ("re\u00adfund", "refund"),
        ],
    )
    def test_ways_to_write_a_word_are_one_term(self, text: str, same: str) -> None:
        assert tokenize(text, "xx") == tokenize(same, "xx")

    @given(st.text(max_size=200))
    def test_any_text_gives_terms_without_white_space(self, text: str) -> None:
        assert not any(re.search(r"\s", term) or len(term) < 1 for term in tokenize(text, "en"))

    @given(st.text(max_size=200))
    def test_case_never_matters(self, text: str) -> None:
        assert tokenize(text.casefold(), "xx") == tokenize(text, "xx")
