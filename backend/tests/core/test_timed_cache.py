"""Values that are good for a moment, and not a moment longer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from app.core.timed_cache import TimedCache


@dataclass(slots=True)
class Source:
    """Counts how often it is asked; the clock is the test's."""

    now: float = 0.0
    asked: list[str] = field(default_factory=list)
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    def cache(self, *, ttl_s: float = 2, size: int = 10) -> TimedCache[str, str]:
        return TimedCache(ttl_s=ttl_s, size=size, clock=lambda: self.now)

    def load(self, value: str) -> Callable[[], Awaitable[str]]:
        async def ask() -> str:
            self.asked.append(value)
            return value

        return ask

    def slow(self, value: str) -> Callable[[], Awaitable[str]]:
        async def ask() -> str:
            self.asked.append(value)
            await self.opened.wait()
            return value

        return ask

    async def begun(self) -> None:
        while not self.asked:
            await asyncio.sleep(0)


@pytest.fixture
def source() -> Source:
    return Source()


class TestGet:
    async def test_asks_once_within_the_time(self, source: Source) -> None:
        cache = source.cache()
        for source.now in (0.0, 1.0, 1.9):
            assert await cache.get("key", source.load("value")) == "value"
        assert source.asked == ["value"]

    async def test_asks_again_when_the_time_is_over(self, source: Source) -> None:
        cache = source.cache()
        for source.now in (0.0, 2.0, 3.9, 4.0):
            await cache.get("key", source.load("value"))
        assert len(source.asked) == 3

    async def test_asks_again_where_a_younger_value_is_wanted(self, source: Source) -> None:
        cache = source.cache()
        await cache.get("key", source.load("old"))
        source.now = 1
        assert await cache.get("key", source.load("new"), max_age_s=1) == "new"
        assert await cache.get("key", source.load("newer"), max_age_s=0) == "newer"

    async def test_counts_from_when_the_loading_began(self, source: Source) -> None:
        cache = source.cache()
        waiting = asyncio.create_task(cache.get("key", source.slow("value")))
        await source.begun()
        source.now = 1.5
        source.opened.set()
        await waiting
        source.now = 2
        await cache.get("key", source.load("again"))
        assert source.asked == ["value", "again"]

    async def test_asks_once_for_all_who_come_together(self, source: Source) -> None:
        cache = source.cache()
        tasks = [asyncio.create_task(cache.get("key", source.slow("value"))) for _ in range(20)]
        await source.begun()
        source.opened.set()
        assert await asyncio.gather(*tasks) == ["value"] * 20
        assert source.asked == ["value"]

    async def test_serves_the_others_when_the_first_goes_away(self, source: Source) -> None:
        cache = source.cache()
        first, second = (asyncio.create_task(cache.get("key", source.slow("value"))) for _ in range(2))
        await source.begun()
        first.cancel()
        source.opened.set()
        assert await second == "value"

    async def test_keeps_no_failure(self, source: Source) -> None:
        async def fail() -> str:
            raise LookupError

        cache = source.cache()
        with pytest.raises(LookupError):
            await cache.get("key", fail)
        assert await cache.get("key", source.load("value")) == "value"

    async def test_keeps_the_most_recently_used(self, source: Source) -> None:
        cache = source.cache(size=2)
        for key in ("a", "b", "a", "c"):
            await cache.get(key, source.load(key))
        assert len(cache) == 2
        for key in ("a", "c"):
            await cache.get(key, source.load(key))
        assert source.asked == ["a", "b", "c"]

    async def test_without_time_keeps_nothing(self, source: Source) -> None:
        cache = source.cache(ttl_s=0)
        for _ in range(2):
            await cache.get("key", source.load("value"))
        assert (len(source.asked), len(cache)) == (2, 0)


class TestDrop:
    async def test_forgets_what_matches(self, source: Source) -> None:
        cache = source.cache()
        for key in ("a", "b"):
            await cache.get(key, source.load(key))
        cache.drop(lambda value: value == "a")
        for key in ("a", "b"):
            await cache.get(key, source.load(key))
        assert source.asked == ["a", "b", "a"]

    async def test_keeps_nothing_that_was_being_loaded(self, source: Source) -> None:
        cache = source.cache()
        waiting = asyncio.create_task(cache.get("key", source.slow("old")))
        await source.begun()
        cache.drop(lambda value: True)
        assert await cache.get("key", source.load("new")) == "new"
        source.opened.set()
        assert await waiting == "old"
        assert await cache.get("key", source.load("newer")) == "new"
