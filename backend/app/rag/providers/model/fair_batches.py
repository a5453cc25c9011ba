"""Sharing one CPU-bound model between many callers: one thread, small batches, nobody starves."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from app.core.errors import Unavailable
from app.rag.types import Dense

_CAP = 1200
"""Bytes that stand for a text of full length (256 word pieces); what is longer gets truncated anyway."""
_BUDGET = 8 * _CAP
"""Padded bytes per batch: about 0.2 s on two cores; larger batches are no faster and delay the others."""
_OLDEST_EVERY = 4


@dataclass(slots=True, eq=False)
class _Call:
    texts: Sequence[str]
    vectors: Dense
    future: Future[Dense] = field(default_factory=Future)
    sizes: list[int] = field(init=False)
    order: list[int] = field(init=False)
    taken: int = 0

    def __post_init__(self) -> None:
        self.sizes = [min(len(text[:_CAP].encode("utf-8", "replace")), _CAP) for text in self.texts]
        # similar lengths side by side: little padding
        self.order = sorted(range(len(self.texts)), key=self.sizes.__getitem__)

    @property
    def left(self) -> int:
        return len(self.order) - self.taken


class FairBatches:
    """Runs `embed` over the texts of concurrent calls on one thread of its own.

    After each batch the call with the fewest texts left goes next, so that a query waits for one
    batch at most, and short calls of like length share a batch; every fourth batch belongs to the
    oldest call, so that queries cannot starve it. `embed` gets texts of similar length and returns
    their vectors in order, shape (len(texts), dimensions).
    """

    def __init__(
        self, embed: Callable[[list[str]], Dense], *, dimensions: int, batch_size: int, name: str
    ) -> None:
        self._embed = embed
        self._dimensions = dimensions
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._running = False
        self._turns = 0

    def submit(self, texts: Sequence[str]) -> Future[Dense]:
        """The vectors, in order. Cancelling the future drops what has not been computed yet."""
        call = _Call(texts, np.empty((len(texts), self._dimensions), np.float32))
        if not texts:
            call.future.set_result(call.vectors)
            return call.future
        with self._lock:
            self._calls.append(call)
            if not self._running:
                self._schedule()
        return call.future

    def close(self) -> None:
        """Finishes the batch being computed; calls still waiting fail with `Unavailable`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._abandon()

    def _schedule(self) -> None:
        try:
            self._pool.submit(self._turn)
            self._running = True
        except RuntimeError:  # closed, or the interpreter is going down
            self._abandon()

    def _abandon(self) -> None:
        self._running = False
        for call in self._calls:
            _settle(call, Unavailable("The embedding model has been closed."))
        self._calls.clear()

    def _turn(self) -> None:
        with self._lock:
            self._calls = [call for call in self._calls if not call.future.cancelled()]
            picked = list(self._pick())
        if picked:
            self._compute(picked)
        with self._lock:
            self._calls = [call for call in self._calls if not call.future.done()]
            if self._calls:
                self._schedule()
            else:
                self._running = False

    def _pick(self) -> Iterator[tuple[_Call, int]]:
        """The next batch as (call, place of a text in it)."""
        self._turns += 1
        calls = sorted(self._calls, key=lambda call: call.left)
        if self._turns % _OLDEST_EVERY == 0 and self._calls:
            calls.remove(self._calls[0])
            calls.insert(0, self._calls[0])
        rows = longest = shortest = 0
        for call in calls:
            while call.left and rows < self._batch_size:
                place = call.order[call.taken]
                size = call.sizes[place]
                widest, narrowest = max(longest, size), min(shortest, size) if rows else size
                padded = (rows + 1) * widest
                # mixing long with short texts would make the short ones pay for the long ones' padding
                if rows and (padded > _BUDGET or widest > 2 * narrowest + 64):
                    break
                rows, longest, shortest = rows + 1, widest, narrowest
                call.taken += 1
                yield call, place

    def _compute(self, picked: list[tuple[_Call, int]]) -> None:
        try:
            vectors = self._embed([call.texts[place] for call, place in picked])
        except BaseException as error:  # handed on to the callers
            for call in {id(call): call for call, _ in picked}.values():
                _settle(call, error)
            return
        for (call, place), vector in zip(picked, vectors, strict=True):
            call.vectors[place] = vector
        for call in {id(call): call for call, _ in picked}.values():
            if not call.left:
                _settle(call, call.vectors)


def _settle(call: _Call, outcome: Dense | BaseException) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        call.future.set_exception(outcome)
    else:
        call.future.set_result(outcome)
