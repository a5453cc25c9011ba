"""Transactions whose task is cancelled, at any moment: they end as cancelled, so that loops end with them."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random

import pytest

from app.core.tasks import cancellation_kept
from app.services.runs.claims import queues_due
from tests.fixtures import Running

SEED, TRIES = 20261122, 200


async def outcome(server: Running, after_s: float) -> str:
    async def work() -> None:
        async with server.resources.database.system_work() as session:
            await queues_due(session)

    task = asyncio.create_task(work())
    await asyncio.sleep(after_s)
    task.cancel()
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    return type(ended).__name__


class TestTransaction:
    # asyncpg leaves a future behind when a connection is closed amid a statement
    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
    async def test_that_is_cancelled_never_ends_as_an_error(self, server: Running) -> None:
        random = Random(SEED)
        ended = Counter([await outcome(server, random.uniform(0, 0.004)) for _ in range(TRIES)])
        assert set(ended) <= {"CancelledError", "NoneType"}
        assert ended["CancelledError"] > TRIES / 10


class TestCancellationKept:
    async def test_lets_an_error_pass_where_nobody_cancelled(self) -> None:
        with pytest.raises(ZeroDivisionError), cancellation_kept():
            raise ZeroDivisionError

    async def test_shows_the_cancellation_that_an_error_hid(self) -> None:
        async def work() -> None:
            with cancellation_kept():
                try:
                    await asyncio.sleep(60)
                finally:
                    raise ZeroDivisionError("while cleaning up")

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_leaves_errors_after_a_cancellation_that_was_handled(self) -> None:
        async def work() -> str:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                try:
                    with cancellation_kept():
                        raise ZeroDivisionError("in the last work")
                except ZeroDivisionError:
                    return "seen"
            return "not cancelled"

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        assert await task == "seen"
