"""The end of ingestion: publishing is named where it fails, seen where it waits, and keeps nobody waiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, NoReturn

import pytest

from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError
from app.db.postgres.models.jobs import WorkKind
from app.db.postgres.models.rag import DocumentStatus
from app.db.postgres.repositories.rag import Indexes
from app.rag.indexing import Indexed
from app.rag.providers.vector_store.pgvector import PgVector
from app.rag.types import SparseVector, VectorEntry
from app.services.rag_service import SearchMode
from tests.prose import prose
from tests.workers.test_index_statistics import dies_at, index_of, set_average, wrongly_encoded
from tests.workers.world import World, before_each_write

pytestmark = pytest.mark.asyncio(loop_scope="session")
S = DocumentStatus
LAST_WRITE = 5
"""Of a document of four chunks, embedded two at a time: the one that publishes."""


class Broken(AppError):
    status, code, retriable = 500, "broken", False


def publishing_raises(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    async def fail(*_: object, **__: object) -> NoReturn:
        raise error

    monkeypatch.setattr(PgVector, "publish", fail)


async def seen(world: World, name: str) -> tuple[DocumentStatus, str | None]:
    """The status of a document, and the stage of the item that ingests it."""
    document = await world.document(name)
    item = (await world.items(document.id))[-1]
    return document.status, item.stage


@asynccontextmanager
async def others_publishing(world: World) -> AsyncIterator[None]:
    index = await index_of(world)
    async with world.work() as session:
        await Indexes(session, world.tenant).get(index.id, lock=True)
        yield


async def until_seen(world: World, name: str, status: DocumentStatus) -> None:
    async with asyncio.timeout(20):
        while (await world.document(name)).status is not status:
            await asyncio.sleep(0.02)


class TestFailure:
    async def test_that_may_pass_is_seen_as_indexing_between_attempts(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publishing_raises(monkeypatch, RuntimeError("a bug"))
        await world.put(a=prose(1))
        await world.drain().run(INGEST_QUEUE)
        assert await seen(world, "a") == (S.INDEXING, "indexing")

    @pytest.mark.parametrize("error", [RuntimeError("a bug"), Broken("no use")], ids=["bug", "final"])
    async def test_names_the_stage(
        self, world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        publishing_raises(monkeypatch, error)
        await world.put(a=prose(1))
        await world.work_off()
        document = await world.document("a")
        assert document.error
        assert (document.status, document.error["stage"]) == (S.FAILED, "indexing")

    async def test_of_the_whole_worker_names_the_stage(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        publishing_raises(monkeypatch, asyncio.CancelledError())
        await world.put(a=prose(1))
        for _ in range(5):
            await world.drain().run(INGEST_QUEUE)
            await world.hurry()
        document = await world.document("a")
        assert document.error
        assert (document.error["code"], document.error["stage"]) == ("worker_died", "indexing")

    async def test_of_the_last_batch_names_the_stage(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        upsert = PgVector.upsert

        async def fail(self: PgVector, new: Sequence[VectorEntry]) -> None:
            if await self.stored(new[0].document_version_id):
                raise RuntimeError("a bug")
            await upsert(self, new)

        monkeypatch.setattr(PgVector, "upsert", fail)
        await world.put(a=prose(1))
        await world.drain().run(INGEST_QUEUE)
        assert await seen(world, "a") == (S.INDEXING, "indexing")

    async def test_is_forgotten_once_it_has_passed(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with monkeypatch.context() as broken:
            publishing_raises(broken, RuntimeError("a bug"))
            await world.put(a=prose(1))
            await world.drain().run(INGEST_QUEUE)
        await world.hurry()
        await world.work_off()
        document = await world.document("a")
        assert (document.status, document.error) == (S.READY, None)
        assert set(await world.search("lantern")) == {"a"}


class TestWaiting:
    async def test_for_others_is_seen(self, world: World) -> None:
        await world.put(first="A falcon over the meadow.")
        await world.work_off()
        await world.put(a=prose(1))
        async with others_publishing(world):
            draining = asyncio.create_task(world.drain().run(INGEST_QUEUE))
            await until_seen(world, "a", S.INDEXING)
            assert await world.count("vector_entries", "NOT visible") == 4
            assert await world.search("lantern", SearchMode.KEYWORD) == []
        await draining
        assert (await world.document("a")).status is S.READY

    async def test_for_a_moment_costs_no_transaction(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        writes: list[DocumentStatus] = []

        async def look(stage: DocumentStatus) -> None:
            writes.append(stage)
            if stage is S.INDEXING:
                locking.set()
                await locked.wait()

        locking, locked = asyncio.Event(), asyncio.Event()
        before_each_write(monkeypatch, look)
        await world.put(a=prose(1))
        draining = asyncio.create_task(world.drain().run(INGEST_QUEUE))
        await locking.wait()
        async with others_publishing(world):
            locked.set()
            await asyncio.sleep(0.05)
        await draining
        assert writes.count(S.INDEXING) == 1
        assert (await world.document("a")).status is S.READY


class TestSecondAttempt:
    async def test_encodes_what_the_first_stored_with_the_average_of_now(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.begun(world, monkeypatch)
        average = ((await index_of(world)).average_length or 0) * 1.1
        await set_average(world, average)
        await world.work_off()
        assert (await index_of(world)).average_length == average
        assert await wrongly_encoded(world, average) == []

    async def test_encodes_some_at_a_time_and_never_on_the_event_loop(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await self.begun(world, monkeypatch)
        threads: list[threading.Thread] = []
        sparse = Indexed.sparse

        def noted(self: Indexed, average_length: float) -> SparseVector:
            threads.append(threading.current_thread())
            return sparse(self, average_length)

        monkeypatch.setattr(Indexed, "sparse", noted)
        monkeypatch.setattr("app.services.ingestion_service._AT_ONCE", 1)
        stages: list[DocumentStatus] = []

        async def look(stage: DocumentStatus) -> None:
            stages.append(stage)

        before_each_write(monkeypatch, look)
        await world.work_off()
        on_the_loop = threads.count(threading.current_thread())
        assert (on_the_loop, len(threads) - on_the_loop) == (2, 4)  # the batch that is embedded, all of it
        assert stages.count(S.INDEXING) == 1 + 4 + 1

    async def test_lets_others_publish_meanwhile(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        await self.begun(world, monkeypatch)
        monkeypatch.setattr("app.services.ingestion_service._AT_ONCE", 1)
        writes = 0
        others: list[DocumentStatus] = []

        async def publish_another(stage: DocumentStatus) -> None:
            nonlocal writes
            writes += stage is S.INDEXING
            if writes == 3 and not others:
                others.append(S.ACCEPTED)
                await world.put(other="A falcon over the meadow.")
                handlers: dict[str, Any] = {WorkKind.INGEST: world.ingestion().ingest}
                await world.drain(handlers=handlers, owner="local:other").run(INGEST_QUEUE)
                others.append((await world.document("other")).status)

        before_each_write(monkeypatch, publish_another)
        await world.work_off()
        assert others == [S.ACCEPTED, S.READY]
        assert (await world.document("big")).status is S.READY

    async def begun(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        """A document whose worker died before it was published."""
        with monkeypatch.context() as dying:
            before_each_write(dying, dies_at(LAST_WRITE))
            await world.put(big=prose(1))
            await world.drain().run(INGEST_QUEUE)
        assert await world.count("vector_entries") == 2
        await world.hurry()
