"""Ingestion: every accepted document ends ready or failed, the same whatever happened on the way."""

import asyncio
from collections.abc import AsyncIterator
from socket import gaierror
from types import SimpleNamespace
from typing import Any, NoReturn
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError, Unavailable
from app.db.postgres.models.jobs import WorkState
from app.db.postgres.models.rag import ChunkRow, DocumentStatus
from app.rag.types import Dense
from app.services.intake_service import Incoming, Verdict
from app.services.rag_service import SearchMode
from tests.prose import prose
from tests.workers.world import HashedWords, World, before_each_write

pytestmark = pytest.mark.asyncio(loop_scope="session")
S = DocumentStatus
KEYWORD = SearchMode.KEYWORD
WRITES = (S.PARSING, S.CHUNKING, S.EMBEDDING, S.EMBEDDING, S.INDEXING)
"""The stage that each transaction shows for a document of four chunks, embedded two at a time."""


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
        assert (document.status, document.chunk_count) == (S.READY, 4)

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
        assert [len(batch) for batch in world.embedder.calls] == [2, 2, 2]
        assert await chunk_ids(world) == ids
        assert len(ids) == 4

    async def test_too_often_ends_in_a_failure_that_says_so(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def die(stage: DocumentStatus) -> None:
            if stage is S.EMBEDDING:
                raise asyncio.CancelledError

        before_each_write(monkeypatch, die)
        await world.put(poison=prose(1))
        for _ in range(5):
            await world.drain().run(INGEST_QUEUE)
            await world.hurry()
        document = await world.document("poison")
        assert document.status is S.FAILED
        assert document.error
        assert (document.error["code"], document.error["stage"]) == ("worker_died", "chunking")
        assert "4 times" in document.error["message"]
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


class TestFailure:
    async def test_of_the_parser_is_shown_with_reason_and_stage(self, world: World) -> None:
        broken = Incoming("broken.pdf", once(b"%PDF-1.7 and nothing more"))
        await world.take(broken, Incoming("fine.txt", once(b"A lantern.")))
        await world.work_off()
        document = await world.document("broken.pdf")
        assert document.status is S.FAILED
        assert document.error
        assert (document.error["code"], document.error["stage"]) == ("corrupt", "parsing")
        assert document.error["retriable"] is False
        assert (await world.document("fine.txt")).status is S.READY

    async def test_of_the_parser_is_not_repeated(self, world: World) -> None:
        accepted = await world.take(Incoming("broken.pdf", once(b"%PDF-1.7 and nothing more")))
        await world.work_off()
        (item,) = await world.items(accepted.items[0].document_id or UUID(int=0))
        assert (item.state, item.attempts) == (WorkState.FAILED, 1)

    async def test_of_a_model_is_repeated_and_then_shown(self, world: World) -> None:
        embedder = Failing(times=99)
        await world.put(a=prose(1))
        await world.work_off(embedder=embedder)
        document = await world.document("a")
        assert document.status is S.FAILED
        assert document.error
        assert (document.error["code"], document.error["stage"]) == ("model_broken", "embedding")
        assert document.error["message"] == "The model answers nonsense."
        assert embedder.failed == 3

    async def test_of_what_we_depend_on_is_waited_for(self, world: World) -> None:
        """A model that is away is no failure of the document."""
        await world.put(a=prose(1))
        embedder = Failing(times=5, error=Unavailable("The model is away."))
        await world.work_off(embedder=embedder)
        assert (await world.document("a")).status is S.READY
        assert embedder.failed == 5

    async def test_of_what_we_depend_on_ends_when_patience_does(self, world: World) -> None:
        await world.put(a=prose(1))
        away = Failing(times=99, error=Unavailable("The model is away."))
        await world.work_off(embedder=away, patience_s=0)
        document = await world.document("a")
        assert document.error
        assert (document.status, document.error["code"]) == (S.FAILED, "unavailable")

    @pytest.mark.parametrize("stray", [TimeoutError, ConnectionResetError, ConnectionRefusedError, gaierror])
    @pytest.mark.parametrize("stage", [S.PARSING, S.EMBEDDING])
    async def test_that_looks_like_an_outage_is_not_laid_upon_the_database(
        self, world: World, stage: DocumentStatus, stray: type[OSError]
    ) -> None:
        """A time-out or a lost connection of a parser or a model is charged to the document."""
        attempts = 0

        async def fail(*_: object, **__: object) -> NoReturn:
            nonlocal attempts
            attempts += 1
            raise stray("of something else")

        part: dict[str, Any] = (
            {"parse": fail} if stage is S.PARSING else {"embedder": SimpleNamespace(embed=fail)}
        )
        await world.put(a=prose(1))
        await world.work_off(**part)
        document = await world.document("a")
        assert (document.status, attempts) == (S.FAILED, 3)
        assert document.error == {
            "code": "internal_error",
            "message": f"{stray.__name__} while working",
            "retriable": True,
            "stage": stage,
        }

    async def test_that_passes_leaves_no_trace(self, world: World) -> None:
        await world.put(a=prose(1))
        await world.work_off(embedder=Failing(times=2))
        document = await world.document("a")
        assert (document.status, document.error) == (S.READY, None)

    async def test_of_a_new_version_leaves_the_old_one_in_search(self, world: World) -> None:
        await world.take(Incoming("doc", once(b"A lantern in the harbour."), title="Doc"))
        await world.work_off()
        await world.take(Incoming("doc", once(b"%PDF-1.7 and nothing more"), title="Doc"))
        await world.work_off()
        assert (await world.document("doc")).status is S.FAILED
        assert await world.search("lantern") == ["doc"]

    async def test_does_not_stop_the_same_content_from_being_tried_again(self, world: World) -> None:
        await world.put(a=prose(1))
        await world.work_off(embedder=Failing(times=99))
        accepted = await world.put(a=prose(1))
        assert accepted.items[0].status is Verdict.ACCEPTED
        await world.work_off()
        assert (await world.document("a")).status is S.READY


class Failing:
    """An embedder that fails as often as it is told to."""

    name, dimensions = "test/hashed-words", 16

    def __init__(self, times: int, error: AppError | None = None) -> None:
        self.times = times
        self.error = error or AppError("The model answers nonsense.", code="model_broken")
        self.failed = 0

    async def embed(self, texts: list[str]) -> Dense:
        if self.failed < self.times:
            self.failed += 1
            raise self.error
        return await HashedWords().embed(texts)


class TestNewContent:
    async def test_takes_the_place_of_the_old_at_once(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await world.put(doc="A lantern in the harbour.")
        await world.work_off()
        seen: set[tuple[bool, bool]] = set()

        async def look(stage: DocumentStatus) -> None:
            old, new = await world.search("lantern", KEYWORD), await world.search("falcon", KEYWORD)
            seen.add((bool(old), bool(new)))

        before_each_write(monkeypatch, look)
        await world.put(doc="A falcon over the meadow.")
        await world.work_off()
        assert seen == {(True, False)}
        assert (await world.search("lantern", KEYWORD), await world.search("falcon", KEYWORD)) == (
            [],
            ["doc"],
        )

    async def test_leaves_nothing_of_the_old(self, world: World) -> None:
        accepted = await world.put(doc=prose(1))
        await world.work_off()
        await world.put(doc=prose(2, sentences=10))
        await world.work_off()
        document_id = accepted.items[0].document_id
        assert document_id
        traces = await world.traces(document_id)
        assert traces == {
            "documents": 1,
            "document_versions": 1,
            "chunks": 1,
            "vector_entries": 1,
            "files": 1,
            "blobs": 1,
        }

    async def test_that_is_unchanged_is_skipped(self, world: World) -> None:
        await world.put(doc=prose(1))
        await world.work_off()
        before = await world.document("doc")
        accepted = await world.put(doc=prose(1))
        assert [one.status for one in accepted.items] == [Verdict.UNCHANGED]
        assert accepted.items[0].document_id == before.id
        assert await world.drain().run(INGEST_QUEUE) == 0
        assert len(world.blobs()) == 1

    @pytest.mark.parametrize("write", range(len(WRITES)))
    async def test_during_each_stage_of_the_old_wins(
        self, world: World, monkeypatch: pytest.MonkeyPatch, write: int
    ) -> None:
        writes = 0

        async def overtake(stage: DocumentStatus) -> None:
            nonlocal writes
            writes += 1
            if writes == write + 1:
                await world.put(doc="A falcon over the meadow.")

        before_each_write(monkeypatch, overtake)
        await world.put(doc=prose(1))
        await world.work_off()
        assert [text for _, _, text, *_ in await world.fingerprint()] == ["A falcon over the meadow."]
        assert await world.count("vector_entries") == await world.count("chunks") == 1
        assert len(world.blobs()) == await world.count("files") == 1
        assert (await world.document("doc")).status is S.READY
