"""A small cache whose entries are good for a few seconds: for look-ups that every request makes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from math import inf
from time import monotonic
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TimedCache(Generic[K, V]):
    """At most `size` values, each for `ttl_s` from the moment its loading began; failures are not kept.

    Callers that miss at the same moment share one loading. `ttl_s=0` keeps and shares nothing.
    """

    def __init__(self, *, ttl_s: float, size: int, clock: Callable[[], float] = monotonic) -> None:
        self._ttl_s = ttl_s
        self._size = size
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._loading: dict[K, asyncio.Task[V]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, key: K, load: Callable[[], Awaitable[V]], *, max_age_s: float = inf) -> V:
        """The value of `key`, younger than `max_age_s`; from `load` where there is none."""
        if not self._ttl_s:
            return await load()
        found = self._kept.get(key)
        if found is not None and self._clock() - found[0] < min(self._ttl_s, max_age_s):
            self._kept.move_to_end(key)
            return found[1]
        loading = self._loading.get(key)
        if loading is None:
            loading = self._loading[key] = asyncio.ensure_future(self._load(key, load))
            loading.add_done_callback(_heard)
        return await asyncio.shield(loading)  # one caller who goes away does not take it from the others

    def drop(self, matches: Callable[[V], bool]) -> None:
        """Forgets the values that match, and lets nothing be kept that is being loaded now."""
        self._loading.clear()
        for key in [key for key, (_, value) in self._kept.items() if matches(value)]:
            del self._kept[key]

    async def _load(self, key: K, load: Callable[[], Awaitable[V]]) -> V:
        began = self._clock()
        me = asyncio.current_task()
        try:
            value = await load()
        finally:
            current = self._loading.get(key) is me
            if current:
                del self._loading[key]
        if current:
            self._keep(key, began, value)
        return value

    def _keep(self, key: K, began: float, value: V) -> None:
        self._kept[key] = (began, value)
        self._kept.move_to_end(key)
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)


def _heard(task: asyncio.Task[V]) -> None:
    """Takes note of a failure that nobody waits for any more."""
    if not task.cancelled():
        task.exception()
