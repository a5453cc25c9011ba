"""What every `Embedder` must do: a provider's tests inherit `EmbedderConformance`."""

from __future__ import annotations

import asyncio
import time

import numpy as np

from app.rag.types import Embedder

TEXTS = [
    "The refund takes thirty days.",
    "Whales are mammals.",
    "A parcel arrives within a week of the order.",
    "",
    "Zürich — 東京 — مرحبا",
]


class EmbedderConformance:
    """Needs a fixture `embedder`. `tolerance` is how far batch mates may move a value."""

    tolerance = 1e-4

    async def test_gives_one_row_of_float32_per_text(self, embedder: Embedder) -> None:
        vectors = await embedder.embed(TEXTS)
        assert vectors.shape == (len(TEXTS), embedder.dimensions)
        assert vectors.dtype == np.float32

    async def test_is_ready_once_it_has_embedded_a_text(self, embedder: Embedder) -> None:
        await embedder.embed(TEXTS[:1])
        assert embedder.ready

    async def test_vectors_have_unit_length(self, embedder: Embedder) -> None:
        lengths = np.linalg.norm(await embedder.embed(TEXTS), axis=1)
        assert np.allclose(lengths, 1, atol=1e-3)

    async def test_rows_are_in_the_order_of_the_texts(self, embedder: Embedder) -> None:
        forwards, backwards = await embedder.embed(TEXTS), await embedder.embed(TEXTS[::-1])
        assert np.allclose(forwards, backwards[::-1], atol=self.tolerance)

    async def test_a_text_has_the_same_vector_whatever_stands_beside_it(self, embedder: Embedder) -> None:
        alone = await embedder.embed(TEXTS[:1])
        crowd = await embedder.embed([*TEXTS, "word " * 300])
        assert np.allclose(alone[0], crowd[0], atol=self.tolerance)

    async def test_no_texts_give_no_rows(self, embedder: Embedder) -> None:
        assert (await embedder.embed([])).shape == (0, embedder.dimensions)

    async def test_like_texts_are_nearer_than_unlike_ones(self, embedder: Embedder) -> None:
        question, near, far = await embedder.embed(["When do I get my money back?", TEXTS[0], TEXTS[1]])
        assert question @ near > question @ far

    async def test_the_event_loop_goes_on_meanwhile(self, embedder: Embedder) -> None:
        await embedder.embed(["load the model first"])
        work = asyncio.ensure_future(embedder.embed(["some longer text " * 60] * 24))
        worst = 0.0
        while not work.done():
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            worst = max(worst, time.perf_counter() - before)
        assert (await work).shape[0] == 24
        assert worst < 0.25

    async def test_concurrent_calls_get_their_own_vectors(self, embedder: Embedder) -> None:
        together = await asyncio.gather(*(embedder.embed([text]) for text in TEXTS))
        assert np.allclose(np.concatenate(together), await embedder.embed(TEXTS), atol=self.tolerance)
