"""The vectors of questions asked again, kept in the process."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from app.rag.types import Dense, Embedder

_MAX_CHARACTERS = 2000


class CachedQueries:
    """`Embedder` that remembers the vectors of the last `size` single short texts (least recently used out).

    Calls with several texts are passed on: documents are embedded once and would only push queries
    out. 1,000 entries of 384 dimensions take about 2 MB.
    """

    def __init__(self, embedder: Embedder, *, size: int = 1024) -> None:
        self._embedder = embedder
        self._size = size
        self._vectors: OrderedDict[str, Dense] = OrderedDict()

    @property
    def name(self) -> str:
        return self._embedder.name

    @property
    def dimensions(self) -> int:
        return self._embedder.dimensions

    @property
    def ready(self) -> bool:
        return self._embedder.ready

    async def embed(self, texts: Sequence[str]) -> Dense:
        """As the embedder behind it; the result is the caller's own to change."""
        if len(texts) != 1 or len(texts[0]) > _MAX_CHARACTERS:
            return await self._embedder.embed(texts)
        text = texts[0]
        if text in self._vectors:
            self._vectors.move_to_end(text)
            return self._vectors[text].copy()
        vectors = await self._embedder.embed(texts)
        self._vectors[text] = vectors.copy()
        while len(self._vectors) > self._size:
            self._vectors.popitem(last=False)
        return vectors
