"""Rate limits: a sliding window, shared between processes, that never refuses because Redis is away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from itertools import count
from math import ceil
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.ids import new_id
from app.core.rate_limits import Limit, RateLimiter
from app.embedded import Services

WINDOW_S = 10.0


@dataclass(slots=True)
class Clock:
    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass(slots=True)
class Memory:
    """Counters that several limiters in this test share."""

    totals: dict[str, int] = field(default_factory=dict)

    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        self.totals[key] = self.totals.get(key, 0) + amount
        return self.totals[key]


class Away:
    async def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        raise ConnectionError("nobody there")


def limiter(
    clock: Clock | None = None, *, redis_url: str = "redis://127.0.0.1:1", **requests: int
) -> RateLimiter:
    limits = {scope: Limit(scope, n, f"ORRERY_RATE_LIMIT_{scope.upper()}") for scope, n in requests.items()}
    return RateLimiter(limits, WINDOW_S, redis_url, now=clock or Clock(), sync_s=0.01)


def taken(rates: RateLimiter, times: int, *callers: tuple[str, str]) -> int:
    """How many of so many requests were let through."""
    verdicts = [rates.take(callers or [("credential", "a")]) for _ in range(times)]
    return sum(verdict is None or verdict.retry_after_s is None for verdict in verdicts)


class TestWindow:
    def test_lets_as_many_through_as_the_limit_says(self) -> None:
        assert taken(limiter(credential=5), 8) == 5

    def test_counts_each_caller_for_itself(self) -> None:
        rates = limiter(credential=5)
        assert taken(rates, 8, ("credential", "a")) == taken(rates, 8, ("credential", "b")) == 5

    def test_is_off_at_zero(self) -> None:
        rates = limiter(credential=0)
        assert rates.take([("credential", "a")]) is None
        assert rates.counters == {}

    def test_slides(self) -> None:
        clock = Clock()
        rates = limiter(clock, credential=10)
        assert taken(rates, 10) == 10
        clock.now += 1.5 * WINDOW_S  # half of the full window before still counts
        assert taken(rates, 10) == 5

    def test_is_empty_after_two(self) -> None:
        clock = Clock()
        rates = limiter(clock, credential=10)
        taken(rates, 10)
        clock.now += 2 * WINDOW_S
        assert taken(rates, 11) == 10

    def test_does_not_count_what_it_refuses(self) -> None:
        clock = Clock()
        rates = limiter(clock, credential=10)
        taken(rates, 1000)
        clock.now += 1.5 * WINDOW_S
        assert taken(rates, 10) == 5

    @given(
        limit=st.integers(1, 50),
        before=st.integers(0, 80),
        now=st.integers(0, 80),
        passed=st.floats(0, 0.999),
    )
    def test_has_room_again_after_the_time_it_names(
        self, limit: int, before: int, now: int, passed: float
    ) -> None:
        clock = Clock()
        rates = limiter(clock, credential=limit)
        taken(rates, before)
        clock.now += (1 + passed) * WINDOW_S
        taken(rates, now)
        verdict = rates.take([("credential", "a")])
        assert verdict
        if verdict.retry_after_s is not None:
            assert 0 <= verdict.retry_after_s <= 2 * WINDOW_S
            clock.now += max(1, ceil(verdict.retry_after_s))  # as the header says it
            assert taken(rates, 1) == 1


class TestSeveralLimits:
    def test_count_only_where_all_have_room(self) -> None:
        rates = limiter(credential=5, project=3)
        assert taken(rates, 5, ("credential", "a"), ("project", "p")) == 3
        assert taken(rates, 5, ("credential", "a")) == 2

    def test_tell_of_the_narrowest(self) -> None:
        rates = limiter(credential=5, project=100)
        verdict = rates.take([("credential", "a"), ("project", "p")])
        assert verdict
        assert (verdict.limit.scope, verdict.remaining) == ("credential", 4)
        assert 0 < verdict.reset_s <= WINDOW_S


class TestSharing:
    async def test_adds_up_what_processes_count(self) -> None:
        clock, memory = Clock(), Memory()
        here, there = limiter(clock, credential=20), limiter(clock, credential=20)
        for rates in (here, there, here):
            taken(rates, 6)
            await rates.share(memory)
        assert list(memory.totals.values()) == [18]
        await there.share(memory)
        assert taken(here, 20) == 2

    async def test_leaves_out_counters_far_from_their_limit(self) -> None:
        memory, rates = Memory(), limiter(credential=1600)
        taken(rates, 99)
        await rates.share(memory)
        assert memory.totals == {}
        taken(rates, 1)
        await rates.share(memory)
        assert list(memory.totals.values()) == [100]

    async def test_keeps_counting_while_redis_is_away(self) -> None:
        rates, memory = limiter(credential=20), Memory()
        assert taken(rates, 15) == 15
        await rates.share(Away())
        assert taken(rates, 15) == 5
        await rates.share(memory)
        assert list(memory.totals.values()) == [20]

    async def test_forgets_callers_that_went_away(self) -> None:
        clock = Clock()
        rates = limiter(clock, credential=5)
        for number in range(100):
            taken(rates, 1, ("credential", str(number)))
        clock.now += 3 * WINDOW_S
        async with rates.sharing():
            taken(rates, 1)
            while len(rates.counters) > 1:
                await asyncio.sleep(0.01)


class TestRedis:
    @pytest.fixture
    async def two(self, services: Services) -> AsyncIterator[tuple[RateLimiter, RateLimiter]]:
        clock = Clock()
        made = [limiter(clock, redis_url=services.redis_url, credential=100) for _ in range(2)]
        async with AsyncExitStack() as stack:
            for rates in made:
                await stack.enter_async_context(rates.sharing())
            yield made[0], made[1]

    async def test_carries_the_counts_between_processes(self, two: tuple[RateLimiter, RateLimiter]) -> None:
        here, there = two
        caller = ("credential", new_id().hex)
        assert taken(here, 70, caller) == 70
        async with asyncio.timeout(30):
            for _ in count():
                verdict: Any = there.take([caller])
                if verdict.remaining < 30:
                    break
                await asyncio.sleep(0.01)
        assert taken(there, 100, caller) <= 30
