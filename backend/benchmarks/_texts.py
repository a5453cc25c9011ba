"""Texts made of words: reproducible, without meaning, distributed as words in real texts are (Zipf)."""

from __future__ import annotations

import random
import re
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

HANDBOOK = Path(__file__).resolve().parents[2] / "examples" / "handbook"
_SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in ("a", "e", "i", "o", "u", "an", "or", "el")]
_RARE_WORDS = 20_000
_SENTENCE_WORDS = 14


def make_texts(count: int, *, words: int, seed: int = 1) -> list[str]:
    """`count` texts of `words` words in sentences and paragraphs."""
    chance = random.Random(seed)
    return [_text(chance, words) for _ in range(count)]


def make_queries(count: int, *, words: int = 8, seed: int = 2) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(_words(chance, words)) for _ in range(count)]


def _text(chance: random.Random, count: int) -> str:
    words = _words(chance, count)
    sentences = [words[i : i + _SENTENCE_WORDS] for i in range(0, count, _SENTENCE_WORDS)]
    said = [" ".join(sentence).capitalize() + "." for sentence in sentences]
    return "\n\n".join(" ".join(said[i : i + 5]) for i in range(0, len(said), 5))


def _words(chance: random.Random, count: int) -> list[str]:
    vocabulary, weights = _vocabulary()
    return chance.choices(vocabulary, cum_weights=weights, k=count)


@lru_cache(maxsize=1)
def _vocabulary() -> tuple[list[str], list[float]]:
    """English words of the sample handbook, the most frequent first, then rare words that exist nowhere."""
    text = "".join(path.read_text("utf-8") for path in sorted(HANDBOOK.glob("*.txt")))
    text += "".join(path.read_text("utf-8") for path in sorted(HANDBOOK.glob("*.md")))
    found = re.findall(r"[a-z]{2,}", text.lower())
    common = sorted(set(found), key=lambda word: (-found.count(word), word))
    chance = random.Random(0)
    rare = ["".join(chance.choices(_SYLLABLES, k=3)) for _ in range(_RARE_WORDS)]
    words = list(dict.fromkeys(common + rare))
    return words, list(accumulate(1 / rank for rank in range(1, len(words) + 1)))
