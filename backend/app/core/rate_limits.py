"""How often a caller may ask: counted in this process, shared between processes where it matters.

A sliding window is estimated from two fixed ones (the count of the one before, weighted by how much of
it the window still covers). Deciding takes no round trip: a process tells Redis its counts, through the
library `limits`, and learns the sum, a moment later, and only of counters that have come a good part of
their way. While Redis is away each process counts for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib import import_module
from math import ceil
from time import time
from typing import Any, Protocol

import structlog

from app.core.config import Settings
from app.core.tasks import end

logger = structlog.get_logger(__name__)

_PROCESSES = 16
"""A counter is shared from 1/16 of its limit: unshared parts of so many processes do not exceed it."""
_PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Limit:
    """`requests` per window for each `id` of `scope`; `setting` is what an operator changes."""

    scope: str
    requests: int
    setting: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The narrowest of the limits that a request counts towards. `retry_after_s` where it was refused."""

    limit: Limit
    remaining: int
    reset_s: int
    retry_after_s: float | None = None


@dataclass(slots=True)
class Counter:
    """Requests of one caller in the window `index` and the one before, of all processes as far as known."""

    key: str
    index: int
    current: int = 0
    previous: int = 0
    unshared: int = 0

    def roll(self, index: int) -> None:
        if index != self.index:
            self.previous = self.current if index == self.index + 1 else 0
            self.index, self.current, self.unshared = index, 0, 0


class Shared(Protocol):
    """Counters that all processes see; `limits.aio.storage.RedisStorage` is one."""

    def incr(self, key: str, expiry: int, amount: int = 1) -> Awaitable[int]: ...


@dataclass(slots=True)
class RateLimiter:
    """Limits with 0 requests are off. `now` is the wall clock: windows begin together everywhere."""

    limits: dict[str, Limit]
    window_s: float
    redis_url: str
    sync_s: float = 0.1
    now: Callable[[], float] = time
    counters: dict[tuple[str, object], Counter] = field(default_factory=dict)
    _due: set[tuple[str, object]] = field(default_factory=set)
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)
    _away: bool = False
    _index: int = 0

    def take(self, callers: Iterable[tuple[str, object]]) -> Verdict | None:
        """Counts one request of each `(scope, id)`, or of none where one is at its limit.

        None where nothing limits it.
        """
        moment = self.now()
        index, passed = int(moment // self.window_s), moment % self.window_s / self.window_s
        counted: list[tuple[Limit, Counter, float]] = []
        for caller in callers:
            limit = self.limits.get(caller[0])
            if limit is None or limit.requests == 0:
                continue
            counter = self._counter(caller, index)
            used = counter.previous * (1 - passed) + counter.current
            if used + 1 > limit.requests:
                return self._refused(limit, counter, passed)
            counted.append((limit, counter, used))
        for limit, counter, _ in counted:
            self._count(limit, counter)
        if not counted:
            return None
        limit, _, used = max(counted, key=lambda one: one[2] / one[0].requests)
        return Verdict(limit, int(limit.requests - used - 1), ceil((1 - passed) * self.window_s))

    @asynccontextmanager
    async def sharing(self) -> AsyncIterator[None]:
        """Shares counters with the other processes for the length of the block."""
        task = asyncio.create_task(self._share_forever(), name="rate-limits")
        try:
            yield
        finally:
            await end(task)

    def _counter(self, caller: tuple[str, object], index: int) -> Counter:
        counter = self.counters.get(caller)
        if counter is None:
            counter = self.counters[caller] = Counter(f"{caller[0]}/{caller[1]}", index)
        counter.roll(index)
        return counter

    def _count(self, limit: Limit, counter: Counter) -> None:
        counter.current += 1
        counter.unshared += 1
        if counter.current * _PROCESSES >= limit.requests and not self._wanted.is_set():
            self._wanted.set()

    def _refused(self, limit: Limit, counter: Counter, passed: float) -> Verdict:
        """Room comes back as the window slides off the requests that fill it."""
        if counter.current >= limit.requests:
            windows = 1 - passed + 1 - (limit.requests - 1) / counter.current
        else:
            windows = 1 - passed - max(0, limit.requests - 1 - counter.current) / counter.previous
        reset_s = ceil((1 - passed) * self.window_s)
        return Verdict(limit, 0, reset_s, max(0.0, windows) * self.window_s)

    async def _share_forever(self) -> None:
        storage: Any = None
        try:
            while True:
                try:
                    async with asyncio.timeout(self.window_s):
                        await self._wanted.wait()
                except TimeoutError:
                    self._forget()
                    continue
                self._forget()
                storage = storage or await asyncio.to_thread(_open, self.redis_url)
                await self.share(storage)
                await asyncio.sleep(self.sync_s)
        finally:
            if storage is not None:
                await storage.bridge.get_connection().aclose()

    async def share(self, storage: Shared) -> None:
        """Tells what was counted here since the last time, and learns what was counted everywhere."""
        self._wanted.clear()
        far = [
            counter
            for (scope, _), counter in self.counters.items()
            if counter.unshared and counter.current * _PROCESSES >= self.limits[scope].requests
        ]
        if far:
            await asyncio.gather(*(self._share_one(storage, counter) for counter in far))

    async def _share_one(self, storage: Shared, counter: Counter) -> None:
        index, told = counter.index, counter.unshared
        counter.unshared = 0
        try:
            async with asyncio.timeout(_PATIENCE_S):
                total = await storage.incr(f"{counter.key}/{index}", ceil(2 * self.window_s), told)
        except Exception as error:
            if counter.index == index:
                counter.unshared += told
            if not self._away:
                logger.warning("rate_limits_not_shared", error=repr(error))
            self._away = True
            return
        self._away = False
        if counter.index == index:
            counter.current = max(counter.current, total + counter.unshared)

    def _forget(self) -> None:
        """Drops callers who have not asked for a whole window; looks once per window."""
        index = int(self.now() // self.window_s)
        if index == self._index:
            return
        self._index = index
        for caller in [c for c, counter in self.counters.items() if counter.index < index - 1]:
            del self.counters[caller]


def make_rate_limiter(settings: Settings, redis_url: str) -> RateLimiter:
    requests = {
        "credential": settings.rate_limit_credential,
        "project": settings.rate_limit_project,
        "organization": settings.rate_limit_organization,
        "address": settings.rate_limit_address,
    }
    limits = {
        scope: Limit(scope, count, f"ORRERY_RATE_LIMIT_{scope.upper()}") for scope, count in requests.items()
    }
    return RateLimiter(limits, settings.rate_limit_window_s, redis_url)


def _open(redis_url: str) -> Any:
    """`limits` takes half a second to import, and most processes never come so far."""
    storage = import_module("limits.aio.storage").RedisStorage
    options = {"implementation": "redispy", "key_prefix": "orrery:rate"}
    return storage(f"async+{redis_url}", socket_timeout=_PATIENCE_S, **options)
