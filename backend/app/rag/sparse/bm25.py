"""BM25 as a dot product of sparse vectors: documents carry the term frequency part, queries the IDF.

Robertson and Zaragoza, "The Probabilistic Relevance Framework" (2009), in Lucene's form:
sum over terms of ln(1 + (N - df + 0.5) / (df + 0.5)) * tf / (tf + k1 * (1 - b + b * length / average)).
New documents never change the vectors of others; only the average length is fixed per index version.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import mmh3

from app.rag.sparse.tokens import tokenize
from app.rag.types import SparseVector

_TERM_IDS = 999_999_999


def term_id(term: str) -> int:
    """MurmurHash3 (x86, 32 bits, seed 0) of the term in UTF-8, reduced to 1 … 999,999,999."""
    return mmh3.hash(term, signed=False) % _TERM_IDS + 1


def encode_document(
    tokens: Sequence[str], *, average_length: float, k1: float = 1.2, b: float = 0.75
) -> SparseVector:
    """Term frequency weights, each below 1. `average_length` is that of the index version, in tokens."""
    if average_length <= 0:
        raise ValueError(f"average_length must be greater than 0, not {average_length!r}")
    counts = Counter(map(term_id, tokens))
    norm = k1 * (1 - b + b * len(tokens) / average_length)
    ids = sorted(counts)
    return SparseVector(tuple(ids), tuple(counts[term] / (counts[term] + norm) for term in ids))


def query_terms(text: str, languages: Iterable[str | None]) -> dict[int, int]:
    """Ids of a query's terms in an index holding documents in `languages`, and how often each is said.

    The query is read in each of them, so that its own language, uncertain in a few words, need not
    be known; readings that occur nowhere have no document frequency and so no weight. None stands
    for documents of unknown language.
    """
    counts: dict[int, int] = {}
    for language in set(languages):
        for term, count in Counter(map(term_id, tokenize(text, language))).items():
            counts[term] = max(counts.get(term, 0), count)
    return counts


def encode_query(
    frequencies: Mapping[int, int], *, document_count: int, counts: Mapping[int, int] | None = None
) -> SparseVector:
    """IDF weights, each times the term's `counts` in the query (from `query_terms`; default once).

    `frequencies` is, by term id, in how many of the `document_count` encoded texts (here: chunks) it
    occurs. Terms that occur nowhere are left out; a frequency above `document_count` (statistics a
    moment older than the count) is taken as `document_count`.
    """
    said = counts or {}
    ids = sorted(term for term, frequency in frequencies.items() if frequency > 0)
    weights = (idf(frequencies[term], document_count) * said.get(term, 1) for term in ids)
    return SparseVector(tuple(ids), tuple(weights))


def idf(frequency: int, document_count: int) -> float:
    """Weight of a term found in `frequency` of `document_count` texts; greatest at 0, never negative."""
    frequency = min(frequency, document_count)
    return math.log(1 + (document_count - frequency + 0.5) / (frequency + 0.5))


def dot(first: SparseVector, second: SparseVector) -> float:
    """The BM25 score, of a document's and a query's vector."""
    weights = dict(zip(first.indices, first.values, strict=True))
    pairs = zip(second.indices, second.values, strict=True)
    return sum(weights.get(index, 0.0) * value for index, value in pairs)
