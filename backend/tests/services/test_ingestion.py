"""Ingestion: every accepted document ends ready or failed, the same whatever happened on the way."""

import asyncio
from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.core.constants import INGEST_QUEUE
from app.core.errors import Unavailable
from app.db.postgres.models.jobs import WorkState
from app.db.postgres.models.rag import ChunkRow, DocumentStatus
from app.rag.types import Dense
from app.services.intake_service import Incoming, Verdict
from tests.workers.world import World, before_each_write, prose

pytestmark = pytest.mark.asyncio(loop_scope="session")
S = DocumentStatus
WRITES = (S.PARSING, S.CHUNKING, S.EMBEDDING, S.EMBEDDING, S.INDEXING, S.INDEXING)
"""The stage that each transaction shows for a document of three chunks, embedded two at a time."""


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


class TestStages:
    async def test_are_shown_in_order(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[tuple[DocumentStatus, DocumentStatus]] = []

        async def look(stage: DocumentStatus) -> None:
            seen.append(((await world.document("a")).status, stage))

        before_each_write(monkeypatch, look)
        await world.put(a=prose(1))
        await world.work_off()
        assert [stage for _, stage in seen] == list(WRITES)
        assert [shown for shown, _ in seen] == [S.ACCEPTED, *WRITES[:-1]]
        document = await world.document("a")
        assert (document.status, document.chunk_count) == (S.READY, 3)

    async def test_end_in_search(self, world: World) -> None:
        await world.put(a=prose(1), b=prose(2))
        assert await world.search("lantern harbour") == []
        await world.work_off()
        assert set(await world.search("lantern harbour")) == {"a", "b"}


class TestKilledWorker:
    @pytest.mark.parametrize("write", range(len(WRITES)))
    async def test_is_followed_by_one_that_finishes_the_same(
        self, world: World, monkeypatch: pytest.MonkeyPatch, write: int
    ) -> None:
        other = await world.new_collection("Undisturbed")
        await world.put(other, a=prose(1))
        await world.work_off()
        expected, statistics = await world.fingerprint(), await world.statistics(other)
        await world.delete((await world.document("a")).id)
        await world.work_off()

        before_each_write(monkeypatch, dies_at(write + 1))
        await world.put(a=prose(1))
        await world.drain().run(INGEST_QUEUE)
        assert (await world.document("a")).status is not S.READY
        await world.hurry()
        await world.drain(owner="local:next").run(INGEST_QUEUE)
        assert (await world.document("a")).status is S.READY
        assert await world.fingerprint() == expected
        assert await world.statistics() == statistics

    async def test_does_not_make_the_next_one_repeat_finished_stages(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        parsed: list[str] = []

        async def parse(path, name, *, media_type=None):  # type: ignore[no-untyped-def]
            parsed.append(name)
            return await world.resources.parse(path, name, media_type=media_type)

        before_each_write(monkeypatch, dies_at(5))
        await world.put(a=prose(1))
        await world.drain(parse=parse).run(INGEST_QUEUE)
        ids = await chunk_ids(world)
        await world.hurry()
        await world.drain(parse=parse).run(INGEST_QUEUE)
        assert parsed == ["a"]
        assert [len(batch) for batch in world.embedder.calls] == [2, 1, 1]
        assert await chunk_ids(world) == ids
        assert len(ids) == 3

    async def test_too_often_ends_in_a_failure_that_says_so(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def die(stage: DocumentStatus) -> None:
            if stage is S.EMBEDDING:
                raise asyncio.CancelledError

        before_each_write(monkeypatch, die)
        await world.put(poison=prose(1))
        for _ in range(4):
            await world.drain().run(INGEST_QUEUE)
            await world.hurry()
        document = await world.document("poison")
        assert document.status is S.FAILED
        assert document.error
        assert (document.error["code"], document.error["stage"]) == ("worker_died", "chunking")
        assert "3 times" in document.error["message"]
        assert await world.drain().run(INGEST_QUEUE) == 0


def dies_at(number: int):  # type: ignore[no-untyped-def]
    """A hook that ends the worker at the write with this number, from 1."""
    writes = 0

    async def die(stage: DocumentStatus) -> None:
        nonlocal writes
        writes += 1
        if writes == number:
            raise asyncio.CancelledError

    return die


async def chunk_ids(world: World) -> list[UUID]:
    async with world.work() as session:
        rows = await session.execute(select(ChunkRow.id).order_by(ChunkRow.ordinal))
        return list(rows.scalars())


class TestRedelivery:
    @pytest.mark.parametrize("times", [1, 3, 5])
    async def test_changes_no_chunk(self, world: World, times: int) -> None:
        accepted = await world.put(a=prose(1), b=prose(2))
        await world.work_off()
        before, statistics, ids = (
            await world.fingerprint(),
            await world.statistics(),
            await chunk_ids(world),
        )
        for _ in range(times):
            for one in accepted.items:
                await requeue(world, one.document_id)
            await asyncio.gather(*(world.drain(owner=f"local:{n}").run(INGEST_QUEUE) for n in range(2)))
        assert await world.fingerprint() == before
        assert await world.statistics() == statistics
        assert sorted(await chunk_ids(world)) == sorted(ids)

    async def test_to_many_workers_at_once_is_worked_once(self, world: World) -> None:
        await world.put(**{f"d{n}": prose(n, sentences=20) for n in range(8)})
        taken = await asyncio.gather(*(world.drain(owner=f"local:{n}").run(INGEST_QUEUE) for n in range(4)))
        assert sum(taken) == 8
        assert await world.count("chunks") == await world.count("vector_entries", "visible")


async def requeue(world: World, document_id: UUID | None) -> None:
    async with world.work() as session:
        await session.execute(
            text("UPDATE work_items SET state = 'queued', attempts = 0 WHERE subject_id = :id"),
            {"id": document_id},
        )
