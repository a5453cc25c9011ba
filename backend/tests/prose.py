"""Text to be ingested; imports nothing of ours, for processes that only talk to a platform."""

from __future__ import annotations

import numpy as np

_VOCABULARY = """
    harbour lantern orchard meadow copper thistle walnut granite saffron velvet anchor juniper
    marble cinder willow falcon ember quartz basil canyon dahlia fjord glacier hazel
"""
WORDS = _VOCABULARY.split()


def prose(seed: int, *, sentences: int = 60) -> str:
    """Text of a few chunks, another for each seed, always the same."""
    numbers = np.random.default_rng(seed)
    lines = (" ".join(numbers.choice(WORDS, 12)).capitalize() + "." for _ in range(sentences))
    return f"Document {seed}. " + " ".join(lines)
