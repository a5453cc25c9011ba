"""Sharing one CPU-bound model between many callers: a few threads, small batches, nobody starves."""

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
_BUDGET = 2 * _CAP
"""Padded bytes per batch: about 0.1 s on two cores. Larger ones leave the CPU's caches: 8 times as large
costs 15 % more CPU per text, and delays the others."""
_OLDEST_EVERY = 4


@dataclass(slots=True, eq=False)
class _Call:
    texts: Sequence[str]
    vectors: Dense
    future: Future[Dense] = field(default_factory=Future)
    sizes: list[int] = field(init=False)
    order: list[int] = field(init=False)
    taken: int = 0
    computed: int = 0
    settled: bool = False

    def __post_init__(self) -> None:
        self.sizes = [min(len(text[:_CAP].encode("utf-8", "replace")), _CAP) for text in self.texts]
        # similar lengths side by side: little padding
        self.order = sorted(range(len(self.texts)), key=self.sizes.__getitem__)

    @property
    def left(self) -> int:
        return len(self.order) - self.taken

    @property
    def is_computed(self) -> bool:
        return self.computed == len(self.order)


class FairBatches:
    """Runs `embed` over the texts of concurrent calls, on `threads` threads of its own.

    After each batch the call with the fewest texts left goes next, so that a query waits for one
    batch at most, and short calls of like length share a batch; every fourth batch belongs to the
    oldest call, so that queries cannot starve it. `embed` gets texts of similar length and returns
    their vectors in order, shape (len(texts), dimensions); `threads` calls of it may run at once.
    """

    def __init__(
        self,
        embed: Callable[[list[str]], Dense],
        *,
        dimensions: int,
        batch_size: int,
        name: str,
        threads: int = 1,
    ) -> None:
        self._embed = embed
        self._dimensions = dimensions
        self._batch_size = batch_size
        self._threads = threads
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix=name)
        self._lock = threading.Lock()
        self._calls: list[_Call] = []
        self._busy = 0
        self._turns = 0

    def submit(self, texts: Sequence[str]) -> Future[Dense]:
        """The vectors, in order. Cancelling the future drops what has not been computed yet."""
        call = _Call(texts, np.empty((len(texts), self._dimensions), np.float32))
        if not texts:
            call.future.set_result(call.vectors)
            return call.future
        with self._lock:
            self._calls.append(call)
            self._schedule()
        return call.future

    def close(self) -> None:
        """Finishes the batches being computed; calls still waiting fail with `Unavailable`."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            self._busy = 0
            self._abandon()

    def _schedule(self) -> None:
        """Takes another thread while there is work for it. The caller holds the lock."""
        if self._busy == self._threads or not any(call.left for call in self._calls):
            return
        try:
            self._pool.submit(self._turn)
            self._busy += 1
        except RuntimeError:  # closed, or the interpreter is going down
            self._abandon()

    def _abandon(self) -> None:
        for call in self._calls:
            call.settled = True
            _settle(call, Unavailable("The embedding model has been closed."))
        self._calls.clear()

    def _turn(self) -> None:
        with self._lock:
            self._calls = [call for call in self._calls if not call.future.cancelled()]
            picked = list(self._pick())
            self._schedule()
        if picked:
            self._compute(picked)
        with self._lock:
            self._busy -= 1
            self._calls = [call for call in self._calls if not call.settled and not call.future.cancelled()]
            self._schedule()

    def _pick(self) -> Iterator[tuple[_Call, int]]:
        """The next batch as (call, place of a text in it)."""
        self._turns += 1
        waiting = [call for call in self._calls if call.left]
        calls = sorted(waiting, key=lambda call: call.left)
        if self._turns % _OLDEST_EVERY == 0 and waiting:
            calls.remove(waiting[0])
            calls.insert(0, waiting[0])
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
        error: BaseException | None = None
        vectors: Dense | None = None
        try:
            vectors = self._embed([call.texts[place] for call, place in picked])
        except BaseException as failure:  # handed on to the callers
            error = failure
        with self._lock:  # a call's last batches may end on several threads at once
            if vectors is not None:
                for (call, place), vector in zip(picked, vectors, strict=True):
                    call.vectors[place] = vector
                    call.computed += 1
            calls = {id(call): call for call, _ in picked}.values()
            over = [call for call in calls if not call.settled and (error is not None or call.is_computed)]
            for call in over:
                call.settled = True
        for call in over:
            _settle(call, call.vectors if error is None else error)


def _settle(call: _Call, outcome: Dense | BaseException) -> None:
    if not call.future.set_running_or_notify_cancel():
        return
    if isinstance(outcome, BaseException):
        call.future.set_exception(outcome)
    else:
        call.future.set_result(outcome)
