"""Languages the keyword index knows: their stemmers, and which one a text is written in."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from typing import Any

STEMMERS = {
    "ar": "arabic",
    "ca": "catalan",
    "cs": "czech",
    "da": "danish",
    "de": "german",
    "el": "greek",
    "en": "english",
    "es": "spanish",
    "et": "estonian",
    "eu": "basque",
    "fa": "persian",
    "fi": "finnish",
    "fr": "french",
    "ga": "irish",
    "hi": "hindi",
    "hu": "hungarian",
    "hy": "armenian",
    "id": "indonesian",
    "it": "italian",
    "lt": "lithuanian",
    "ne": "nepali",
    "nl": "dutch",
    "no": "norwegian",
    "pl": "polish",
    "pt": "portuguese",
    "ro": "romanian",
    "ru": "russian",
    "sr": "serbian",
    "sv": "swedish",
    "ta": "tamil",
    "tr": "turkish",
}
"""ISO 639-1 code → Snowball algorithm (https://snowballstem.org)."""

_UNSTEMMED = ("bg", "bn", "he", "hr", "ja", "ka", "ko", "lv", "ms", "sk", "sl", "th", "uk", "ur", "vi", "zh")
LANGUAGES = frozenset((*STEMMERS, *_UNSTEMMED))
"""What `detect_language` may answer."""

_NO_LANGUAGE = "zxx"
_MIN_LETTERS = 20
_MIN_PROBABILITY = 0.6
_SAMPLE = 1500
"""Characters read from each of the beginning, the middle and the end: enough to be sure, in 1 ms."""
_IDEOGRAPHIC = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL")


def detect_language(text: str) -> str | None:
    """ISO 639-1 code of `text` (one of `LANGUAGES`), or None where it is too short or uncertain.

    The first call loads a model (80 MB of memory, 0.5 s).
    """
    sample = _sample(text)
    if _letters(sample) < _MIN_LETTERS:
        return None
    language, probability = _identifier().classify(sample)
    known = language in LANGUAGES and probability >= _MIN_PROBABILITY
    return str(language) if known else None


def _sample(text: str) -> str:
    if len(text) <= 3 * _SAMPLE:
        return text
    middle = (len(text) - _SAMPLE) // 2
    return " ".join((text[:_SAMPLE], text[middle : middle + _SAMPLE], text[-_SAMPLE:]))


def _letters(text: str) -> int:
    """Letters, where one ideograph counts as three."""
    total = 0
    for character in text:
        if character.isalpha():
            total += 3 if character > "\u2e7f" and _ideographic(character) else 1
    return total


@lru_cache(maxsize=4096)
def _ideographic(character: str) -> bool:
    return unicodedata.name(character, "").startswith(_IDEOGRAPHIC)


@lru_cache(maxsize=1)
def _identifier() -> Any:
    # 80 MB of memory, for those who detect only
    from py3langid.langid import MODEL_FILE, LanguageIdentifier  # noqa: PLC0415

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages([*LANGUAGES, _NO_LANGUAGE])
    return identifier
