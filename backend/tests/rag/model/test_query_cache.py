from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from app.rag.providers.model.minilm import MiniLM
from app.rag.providers.model.query_cache import CachedQueries
from app.rag.types import Dense
from tests.rag.model.embedder_conformance import EmbedderConformance


class Counting:
    """Real vectors, and how many texts were embedded for them."""

    def __init__(self, embedder: MiniLM) -> None:
        self.embedder, self.texts = embedder, 0
        self.name, self.dimensions, self.ready = embedder.name, embedder.dimensions, True

    async def embed(self, texts: Sequence[str]) -> Dense:
        self.texts += len(texts)
        return await self.embedder.embed(texts)


@pytest.fixture
def counting(embedder: MiniLM) -> Counting:
    return Counting(embedder)


class TestConformance(EmbedderConformance):
    @pytest.fixture
    def embedder(self, embedder: MiniLM) -> CachedQueries:
        return CachedQueries(embedder)


class TestCachedQueries:
    async def test_embeds_a_repeated_query_once(self, counting: Counting) -> None:
        cached = CachedQueries(counting)
        first, second = await cached.embed(["again"]), await cached.embed(["again"])
        assert counting.texts == 1
        assert np.array_equal(first, second)

    async def test_forgets_the_least_recently_asked(self, counting: Counting) -> None:
        cached = CachedQueries(counting, size=2)
        for text in ("a", "b", "a", "c", "a", "b"):
            await cached.embed([text])
        assert counting.texts == 4

    async def test_a_caller_may_change_its_vectors(self, counting: Counting) -> None:
        cached = CachedQueries(counting)
        mine = await cached.embed(["shared"])
        mine[:] = 0
        assert np.linalg.norm(await cached.embed(["shared"])) == pytest.approx(1, abs=1e-3)

    async def test_batches_of_documents_are_not_kept(self, counting: Counting) -> None:
        cached = CachedQueries(counting)
        await cached.embed(["a", "b"])
        await cached.embed(["a", "b"])
        assert counting.texts == 4
