"""How good a ranking is, as the information retrieval community measures it; all values are in 0 … 1.

`ranked` are document ids, best first and each once. `gains` are the judged documents of the query with
their grades; documents without a positive grade are not relevant. At least one must be relevant.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence


def ndcg(ranked: Sequence[str], gains: Mapping[str, int], *, at: int) -> float:
    """Normalized discounted cumulative gain with linear gains, as trec_eval's `ndcg_cut`.

    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques" (TOIS 2002).
    """
    ideal = sorted(gains.values(), reverse=True)
    return _dcg([gains.get(document, 0) for document in ranked[:at]]) / _dcg(ideal[:at])


def recall(ranked: Sequence[str], gains: Mapping[str, int], *, at: int) -> float:
    """The share of the relevant documents that is among the first `at`."""
    relevant = {document for document, gain in gains.items() if gain > 0}
    return len(relevant.intersection(ranked[:at])) / len(relevant)


def reciprocal_rank(ranked: Sequence[str], gains: Mapping[str, int], *, at: int) -> float:
    """1 / rank of the first relevant document; 0 where none is among the first `at`."""
    for rank, document in enumerate(ranked[:at], start=1):
        if gains.get(document, 0) > 0:
            return 1 / rank
    return 0.0


def _dcg(gains: Sequence[int]) -> float:
    return sum(max(0, gain) / math.log2(rank + 1) for rank, gain in enumerate(gains, start=1))
