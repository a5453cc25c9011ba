from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import numpy as np
import pytest

from app.core.errors import Unavailable
from app.rag.providers.model.fair_batches import FairBatches
from app.rag.types import Dense


class Recorder:
    """Notes the batches it computes; holds the first one until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.started, self.go = threading.Event(), threading.Event()

    def __call__(self, texts: list[str]) -> Dense:
        self.started.set()
        assert self.go.wait(10)
        self.batches.append(texts)
        if "poison" in texts:
            raise Unavailable("poison")
        return np.array([[len(text), ord(text[0])] for text in texts], np.float32)


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def batches(recorder: Recorder) -> Iterator[FairBatches]:
    opened = FairBatches(recorder, dimensions=2, batch_size=4, name="test")
    yield opened
    recorder.go.set()
    opened.close()


def hold(batches: FairBatches, recorder: Recorder) -> None:
    """Occupies the thread, so that what follows queues up."""
    batches.submit(["hold"])
    assert recorder.started.wait(10)


class TestSubmit:
    def test_computes_similar_lengths_together(self, batches: FairBatches, recorder: Recorder) -> None:
        recorder.go.set()
        vectors = batches.submit(["b" * 1000, "a", "c" * 1100, "dd"]).result(10)
        assert recorder.batches == [["a", "dd"], ["b" * 1000, "c" * 1100]]
        assert vectors.tolist() == [[1000, 98], [1, 97], [1100, 99], [2, 100]]

    def test_no_batch_is_larger_than_allowed(self, batches: FairBatches, recorder: Recorder) -> None:
        recorder.go.set()
        batches.submit(["x"] * 10).result(10)
        assert [len(batch) for batch in recorder.batches] == [4, 4, 2]

    def test_long_texts_make_small_batches(self, recorder: Recorder) -> None:
        recorder.go.set()
        batches = FairBatches(recorder, dimensions=2, batch_size=32, name="test")
        batches.submit(["x" * 5000] * 20).result(10)
        batches.close()
        assert [len(batch) for batch in recorder.batches] == [2] * 10


class TestFairness:
    def test_a_short_call_goes_before_the_rest_of_a_long_one(
        self, batches: FairBatches, recorder: Recorder
    ) -> None:
        hold(batches, recorder)
        long = batches.submit(["l" * 900] * 12)
        short = batches.submit(["s"])
        recorder.go.set()
        long.result(10)
        assert short.done()
        assert recorder.batches[1] == ["s"]

    def test_short_calls_share_a_batch(self, batches: FairBatches, recorder: Recorder) -> None:
        hold(batches, recorder)
        futures = [batches.submit([text]) for text in ("a", "b", "c")]
        recorder.go.set()
        assert [future.result(10)[0, 1] for future in futures] == [97, 98, 99]
        assert recorder.batches[1] == ["a", "b", "c"]

    def test_short_calls_cannot_starve_a_long_one(self, batches: FairBatches, recorder: Recorder) -> None:
        hold(batches, recorder)
        long = batches.submit(["l" * 900] * 4)
        short = [batches.submit(["s" * 20] * 3) for _ in range(40)]
        recorder.go.set()
        long.result(10)
        for future in short:
            future.result(10)
        assert recorder.batches.index(["l" * 900] * 2) < 5


class TestThreads:
    def test_as_many_batches_are_computed_at_once(self) -> None:
        together = threading.Barrier(3)

        def embed(texts: list[str]) -> Dense:
            together.wait(10)
            return np.array([[len(text)] for text in texts], np.float32)

        batches = FairBatches(embed, dimensions=1, batch_size=2, name="test", threads=3)
        vectors = batches.submit(["a", "bb", "ccc", "dddd", "eeeee", "ffffff"]).result(10)
        batches.close()
        assert vectors.ravel().tolist() == [1, 2, 3, 4, 5, 6]

    def test_a_call_whose_batches_all_fail_at_once_fails_once(self) -> None:
        together = threading.Barrier(2)

        def embed(texts: list[str]) -> Dense:
            together.wait(10)
            raise Unavailable("poison")

        batches = FairBatches(embed, dimensions=1, batch_size=1, name="test", threads=2)
        call = batches.submit(["a", "b"])
        with pytest.raises(Unavailable, match="poison"):
            call.result(10)
        batches.close()

    def test_many_calls_get_their_own_vectors(self) -> None:
        def embed(texts: list[str]) -> Dense:
            return np.array([[int(text)] for text in texts], np.float32)

        batches = FairBatches(embed, dimensions=1, batch_size=3, name="test", threads=4)
        calls = [batches.submit([str(number + place) for place in range(7)]) for number in range(0, 700, 7)]
        found = [value for call in calls for value in call.result(10).ravel().tolist()]
        batches.close()
        assert found == list(range(700))

    def test_a_closed_model_says_so_to_later_calls(self) -> None:
        batches = FairBatches(lambda texts: np.zeros((len(texts), 1)), dimensions=1, batch_size=1, name="t")
        batches.close()
        with pytest.raises(Unavailable):
            batches.submit(["late"]).result(10)


class TestFailure:
    def test_reaches_the_call_it_belongs_to_and_no_other(
        self, batches: FairBatches, recorder: Recorder
    ) -> None:
        hold(batches, recorder)
        bad, good = batches.submit(["poison"]), batches.submit(["g" * 900])
        recorder.go.set()
        with pytest.raises(Unavailable, match="poison"):
            bad.result(10)
        assert good.result(10).tolist() == [[900, 103]]


class TestCancel:
    def test_what_is_left_is_not_computed(self, batches: FairBatches, recorder: Recorder) -> None:
        hold(batches, recorder)
        unwanted = batches.submit(["unwanted"] * 8)
        assert unwanted.cancel()
        wanted = batches.submit(["w" * 900])
        recorder.go.set()
        wanted.result(10)
        assert not any("unwanted" in batch for batch in recorder.batches)
        with pytest.raises(CancelledError):
            unwanted.result(0)


class TestClose:
    def test_waiting_calls_fail(self, batches: FairBatches, recorder: Recorder) -> None:
        hold(batches, recorder)
        waiting = batches.submit(["w" * 900])
        threading.Timer(0.1, recorder.go.set).start()
        batches.close()
        with pytest.raises(Unavailable, match="closed"):
            waiting.result(10)
