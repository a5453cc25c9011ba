"""What keyword search knows of an index: exact after every history, re-encoded when its texts change."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError
from app.db.postgres.models.jobs import WorkKind
from app.db.postgres.models.rag import DocumentStatus, IndexVersion
from app.db.postgres.repositories.rag import Chunks, StoredChunk
from app.db.postgres.repositories.work import Claim
from app.rag.indexing import indexed
from app.rag.types import ParsedDocument
from app.services.document_service import DocumentService
from app.services.index_service import IndexService
from app.services.job_service import JobService
from app.services.rag_service import SearchMode
from tests.prose import prose
from tests.workers.world import Statistics, World, before_each_write

pytestmark = pytest.mark.asyncio(loop_scope="session")
S = DocumentStatus
KEYWORD = SearchMode.KEYWORD
ENGLISH = "The lanterns of the harbour were burning while ships were sailing home. " * 3
GERMAN = "Die Laternen des Hafens brannten, während die Schiffe nach Hause segelten. " * 3


def dies_at(number: int) -> Callable[[DocumentStatus], Awaitable[None]]:
    """A hook that ends the worker at the write with this number, from 1."""
    writes = 0

    async def die(stage: DocumentStatus) -> None:
        nonlocal writes
        writes += 1
        if writes == number:
            raise asyncio.CancelledError

    return die


async def index_of(world: World) -> IndexVersion:
    async with world.work() as session:
        rows = select(IndexVersion).where(IndexVersion.collection_id == UUID(world.collection))
        return (await session.execute(rows)).scalar_one()


async def wrongly_encoded(world: World, average: float | None, *, title: str = "%") -> list[str]:
    """Texts whose stored weights are not those of `average`, under the titles that their versions had."""
    assert average
    query = """
        SELECT v.title, c.text, v.parsed_metadata->>'language', e.sparse::text FROM vector_entries e
        JOIN chunks c ON c.id = e.chunk_id JOIN document_versions v ON v.id = c.document_version_id
        WHERE v.title LIKE :title
    """
    wrong = []
    async with world.work() as session:
        for name, body, language, stored in await session.execute(text(query), {"title": title}):
            weights = [float(pair.split(":")[1]) for pair in stored.strip("{}").split("}")[0].split(",")]
            if weights != pytest.approx(list(indexed(name, body, language).sparse(average).values), rel=1e-4):
                wrong.append(body)
    return wrong


class TestStatistics:
    async def test_after_any_history_are_those_of_a_fresh_index(self, world: World) -> None:
        await world.put(**{f"d{n}": prose(n, sentences=20) for n in range(6)})
        await world.work_off()
        await world.put(d1=prose(11, sentences=40), d2=prose(12, sentences=5), d7=prose(7))
        await world.work_off()
        for name in ("d0", "d7"):
            await world.delete((await world.document(name)).id)
        await world.work_off()
        fresh = await world.new_collection("Fresh")
        texts = {"d1": prose(11, sentences=40), "d2": prose(12, sentences=5)}
        await world.put(fresh, **texts, **{f"d{n}": prose(n, sentences=20) for n in (3, 4, 5)})
        await world.work_off()
        assert await world.statistics() == await world.statistics(fresh)

    async def test_of_an_emptied_index_are_empty(self, world: World) -> None:
        await world.put(a=prose(1))
        await world.work_off()
        await world.delete((await world.document("a")).id)
        await world.work_off()
        assert await world.statistics() == Statistics(0, 0, {})

    async def test_count_no_document_that_is_not_searched_yet(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before_each_write(monkeypatch, dies_at(5))
        await world.put(a=prose(1))
        await world.drain().run(INGEST_QUEUE)
        assert await world.count("vector_entries") == 2
        assert await world.statistics() == Statistics(0, 0, {})


class TestDrift:
    async def test_of_the_average_length_re_encodes_the_index(self, world: World) -> None:
        await world.put(short="A lantern.")
        await world.work_off()
        assert await wrongly_encoded(world, (await index_of(world)).average_length) == []
        await world.put(**{f"long{n}": prose(n) for n in range(3)})
        await world.work_off()
        await fits(world)

    async def test_waits_for_the_end_of_the_job(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        await world.put(short="A lantern.")
        await world.work_off()
        seen: set[float | None] = set()

        async def look(stage: DocumentStatus) -> None:
            seen.add((await index_of(world)).average_length)

        before_each_write(monkeypatch, look)
        await world.put(**{f"long{n}": prose(n) for n in range(4)})
        await world.work_off(concurrency=1)
        assert len(seen) == 1
        await fits(world)

    async def test_is_seen_though_the_last_of_the_job_fails(self, world: World) -> None:
        await world.put(short="A lantern.")
        await world.work_off()
        parse = world.resources.parse

        async def refuse(path: Path, name: str, *, media_type: str | None = None) -> ParsedDocument:
            if name == "last":
                raise AppError("The parser is broken.")  # tried again, when the others are done
            return await parse(path, name, media_type=media_type)

        await world.put(long=prose(1), last=prose(2))
        await world.work_off(parse=refuse)
        assert (await world.document("last")).status is S.FAILED
        await fits(world)

    async def test_is_seen_though_the_job_is_cancelled(self, world: World) -> None:
        await world.put(short="A lantern.")
        await world.work_off()
        accepted = await world.put(long=prose(1), endless=prose(2))

        async def hold(claim: Claim) -> None:
            name = (await world.document("endless")).id
            await (asyncio.sleep(60) if claim.subject_id == name else world.ingestion().ingest(claim))

        draining = asyncio.create_task(world.drain(handlers={WorkKind.INGEST: hold}).run(INGEST_QUEUE))
        async with asyncio.timeout(20):
            while (await world.document("long")).status is not S.READY:
                await asyncio.sleep(0.05)
        await JobService(world.resources.database, world.tenant).cancel(accepted.job_id)
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        await world.work_off()
        assert (await world.document("endless")).status is S.CANCELLED
        await fits(world)

    async def test_by_what_is_deleted_is_seen(self, world: World) -> None:
        await world.put(short="A lantern.", **{f"long{n}": prose(n) for n in range(3)})
        await world.work_off()
        for number in range(3):
            await world.delete((await world.document(f"long{number}")).id)
        await world.work_off()
        await fits(world)

    async def test_by_what_is_published_during_a_reweigh_is_seen(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await world.put(short="A lantern.")
        await world.work_off()
        in_collection = Chunks.in_collection
        looked = 0

        async def overtaken(self: Chunks, *args: Any, **options: Any) -> list[StoredChunk]:
            nonlocal looked
            looked += 1
            if looked == 2:  # all is encoded again, and the end is about to be found
                await world.put(**{f"long{n}": prose(n) for n in range(3)})
                handlers = {WorkKind.INGEST: world.ingestion().ingest}
                await world.drain(handlers=handlers, owner="local:other").run(INGEST_QUEUE)
            return await in_collection(self, *args, **options)

        monkeypatch.setattr(Chunks, "in_collection", overtaken)
        await world.queue(WorkKind.REWEIGH, (await index_of(world)).id)
        await world.work_off()
        assert {(await world.document(f"long{n}")).status for n in range(3)} == {S.READY}
        await fits(world)

    async def test_is_none_where_texts_have_no_words(self, world: World) -> None:
        await world.put(a="1 2 3")
        await world.work_off()
        index = await index_of(world)
        assert (index.chunk_count, index.term_total, index.average_length) == (1, 0, 1)
        assert await world.items(index.id) == []

    async def test_within_bounds_changes_nothing(self, world: World) -> None:
        await world.put(a=prose(1))
        await world.work_off()
        before = (await index_of(world)).average_length
        await world.put(b=prose(2))
        await world.work_off()
        assert (await index_of(world)).average_length == before

    async def test_reaches_what_is_ingested_meanwhile(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The average changes while a document is on its way, encoded with the old one."""
        await world.put(a=prose(1))
        await world.work_off()
        average = ((await index_of(world)).average_length or 0) * 1.1

        async def drift(stage: DocumentStatus) -> None:
            if stage is S.INDEXING:
                await set_average(world, average)

        before_each_write(monkeypatch, drift)
        await world.put(b=prose(2))
        await world.work_off()
        assert (await index_of(world)).average_length == average
        assert await wrongly_encoded(world, average, title="b") == []

    async def test_is_mended_however_often_the_worker_comes(self, world: World) -> None:
        await world.put(a=prose(1), b=prose(2))
        await world.work_off()
        for _ in range(2):
            await set_average(world, 5.0)
            await world.queue(WorkKind.REWEIGH, (await index_of(world)).id)
            await world.work_off()
            assert await wrongly_encoded(world, (await index_of(world)).average_length) == []


async def fits(world: World) -> None:
    """The average is that of the texts, and all weights are encoded with it."""
    index = await index_of(world)
    assert index.average_length == pytest.approx(index.term_total / index.chunk_count)
    assert await wrongly_encoded(world, index.average_length) == []


class TestReweighing:
    async def test_keeps_the_title_that_is_searched_while_a_newer_one_waits(self, world: World) -> None:
        await world.put(Falcon=prose(1))
        await world.work_off()
        async with world.work() as session:
            documents = DocumentService(session, world.tenant, world.resources.blobs)
            await documents.update((await world.document("Falcon")).id, {"title": "Zanzibar"})
        await reweigh_alone(world, 5.0)
        average = (await index_of(world)).average_length
        assert average != 5.0
        assert await wrongly_encoded(world, average, title="Falcon") == []
        assert await wrongly_encoded(world, average, title="Zanzibar") == []
        assert (await world.search("zanzibar", KEYWORD), await world.search("falcon", KEYWORD)) == (
            [],
            ["Falcon"],
        )

    async def test_keeps_the_language_that_is_searched_while_another_is_ingested(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await world.put(a=ENGLISH)
        await world.work_off()
        with monkeypatch.context() as dying:
            before_each_write(dying, dies_at(3))
            await world.put(a=GERMAN)
            await world.drain().run(INGEST_QUEUE)
        assert (await world.document("a")).language == "de"
        await reweigh_alone(world, 5.0)
        assert await wrongly_encoded(world, (await index_of(world)).average_length) == []


async def reweigh_alone(world: World, average: float) -> None:
    """Re-encodes the index as if its average had been `average`; other work waits."""
    await set_average(world, average)
    await world.queue(WorkKind.REWEIGH, (await index_of(world)).id)
    handlers = {WorkKind.REWEIGH: IndexService(world.resources.database).reweigh}
    assert await world.drain(handlers=handlers).run(INGEST_QUEUE) == 1


async def set_average(world: World, average: float) -> None:
    async with world.work() as session:
        await session.execute(
            text("UPDATE index_versions SET average_length = :average WHERE collection_id = :id"),
            {"average": average, "id": UUID(world.collection)},
        )
