"""Text → terms of the keyword index."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import Stemmer

from app.rag.sparse.languages import STEMMERS
from app.rag.sparse.stopwords import STOPWORDS

# Python's \w leaves out combining signs, which would cut words of these scripts into pieces.
_SIGNS = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u05bf\u05c1-\u05c2\u05c4-\u05c5\u05c7\u0610-\u061a\u064b-\u065f"
    "\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7-\u06e8\u06ea-\u06ed\u0711\u0730-\u074a\u0900-\u0903\u093a-\u094f"
    "\u0951-\u0957\u0962-\u0963\u0981-\u0983\u09bc-\u09cd\u09d7\u09e2-\u09e3\u0a01-\u0a03\u0a3c-\u0a4d"
    "\u0a70-\u0a71\u0a81-\u0a83\u0abc-\u0acd\u0b01-\u0b03\u0b3c-\u0b4d\u0b82\u0bbe-\u0bcd\u0bd7\u0c00-\u0c04"
    "\u0c3e-\u0c4d\u0c81-\u0c83\u0cbc-\u0ccd\u0d00-\u0d03\u0d3b-\u0d4d\u0d81-\u0d83\u0dca-\u0ddf"
)
# Written without spaces between words (Korean: with spaces, but particles cling to them).
_UNSPACED = (
    "\u0e01-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1780-\u17d3\u1100-\u11ff\u3041-\u3096\u309d-\u309f\u30a1-\u30fa"
    "\u30fc-\u30ff\u3105-\u312f\u3005-\u3007\u3131-\u318e\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7a3"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_TOKEN = re.compile(f"(?P<run>[{_UNSPACED}]+)|(?:(?![{_UNSPACED}])[\\w{_SIGNS}])+")


# Compatibility forms of letters: Latin, Hebrew and Arabic presentation forms, full and half width.
_FORMS = re.compile("[\ufb00-\ufdff\ufe70-\ufefc\uff00-\uffef]+")
# Soft hyphen, zero-width characters, byte order mark: may stand inside a word without being part of it.
_INVISIBLE = dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF))
# Latin words in these are mostly English; and so are, mostly, texts too short to tell.
_READ_AS_ENGLISH = frozenset((None, "ja", "ko", "th", "zh"))


def tokenize(text: str, language: str | None) -> list[str]:
    """Terms of `text` in order, with repetitions.

    Words are folded (`fold`), rid of the stop words of `language` (ISO 639-1) and stemmed. None, an
    unknown language, is read as English; a language without stemmer leaves words as they are. Words of
    one character are dropped; `max_tokens` gives itself, `max` and `tokens`. Scripts without spaces
    (Chinese, Japanese, Korean, Thai, …) give pairs of neighbouring characters, whatever `language` says.
    """
    language = "en" if language in _READ_AS_ENGLISH else language
    stops = STOPWORDS.get(language or "", frozenset())
    stem = _stemmer(STEMMERS[language]) if language in STEMMERS else None
    words = (word for word in _words(fold(text)) if len(word) > 1 and word not in stops)
    return [stem(word) for word in words] if stem else list(words)


def fold(text: str) -> str:
    """`text` in NFC and without case, ligatures, width variants and invisible characters.

    Not NFKC as a whole, which glues signs to words: `6½` → `61⁄2`, `Sheets™` → `SheetsTM`.
    """
    text = _FORMS.sub(lambda match: unicodedata.normalize("NFKC", match.group()), text)
    return unicodedata.normalize("NFC", text.translate(_INVISIBLE).casefold())


def _words(text: str) -> Iterator[str]:
    for match in _TOKEN.finditer(text):
        word = match.group()
        if match.lastgroup:
            yield from map("".join, pairwise(word))
            continue
        yield word
        if "_" in word:
            yield from (part for part in word.split("_") if part != word)


@lru_cache(maxsize=len(STEMMERS))
def _stemmer(algorithm: str) -> Any:
    # a stemmer is not safe across threads while its cache is on; without it, our own cache is
    stemmer = Stemmer.Stemmer(algorithm, 0)
    return lru_cache(maxsize=20_000)(stemmer.stemWord)
