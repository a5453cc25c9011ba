"""Fusing ranked lists: reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import TypeVar
from uuid import UUID

from app.rag.types import Hit

Key = TypeVar("Key", bound=Hashable)
RRF_K = 60


def reciprocal_rank(legs: Iterable[Sequence[Key]], *, k: int = RRF_K) -> dict[Key, float]:
    """Score per key, the sum over the legs of 1 / (k + rank), rank from 1."""
    scores: dict[Key, float] = {}
    for leg in legs:
        for rank, key in enumerate(leg, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (k + rank)
    return scores


def best_per_document(hits: Iterable[Hit]) -> list[Hit]:
    """Each document's best chunk, best document first."""
    best: dict[UUID, Hit] = {}
    for hit in hits:
        held = best.get(hit.document_id)
        if held is None or hit.score > held.score:
            best[hit.document_id] = hit
    return sorted(best.values(), key=lambda hit: (-hit.score, hit.chunk_id))
