"""Intake: after the answer no document can be lost, before it nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy.exc import DBAPIError

from app.core.blobs import Blobs
from app.core.constants import INGEST_QUEUE
from app.core.errors import NotFound, StorageFull, Unavailable
from app.core.ids import new_id
from app.db.postgres.models.jobs import WorkState
from app.db.postgres.models.rag import DocumentStatus
from app.services.intake_service import Incoming, IntakeService, Verdict
from app.services.job_service import JobService
from tests.prose import prose
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def bytes_of(*parts: bytes, fault: Exception | None = None) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
    if fault:
        raise fault


def text_file(name: str, content: bytes = b"A lantern.", **given: object) -> Incoming:
    return replace(Incoming(name, bytes_of(content)), **given)  # type: ignore[arg-type]


class TestAccepted:
    async def test_have_rows_bytes_and_work_when_the_answer_comes(self, world: World) -> None:
        accepted = await world.put(a="A lantern.", b="A falcon.")
        assert [one.status for one in accepted.items] == [Verdict.ACCEPTED] * 2
        assert len(world.blobs()) == 2
        states = [(await world.document(name)).status for name in ("a", "b")]
        assert states == [DocumentStatus.ACCEPTED] * 2
        for one in accepted.items:
            assert one.document_id
            assert [item.state for item in await world.items(one.document_id)] == [WorkState.QUEUED]

    async def test_are_counted_by_their_job(self, world: World) -> None:
        await world.put(a="A lantern.")
        await world.work_off()
        accepted = await world.put(a="A lantern.", b="A falcon.")
        job = await JobService(world.resources.database, world.tenant).get(accepted.job_id)
        assert (job.counts.total, job.job.skipped, job.status) == (1, 1, WorkState.QUEUED)

    async def test_keep_the_bytes_that_came(self, world: World) -> None:
        content = bytes(range(256)) * 1000
        await world.take(text_file("a.bin", content))
        assert [path.read_bytes() for path in world.blobs()] == [content]

    async def test_wake_a_worker_after_the_commit(self, world: World) -> None:
        seen: list[int] = []

        async def wake(queue: str) -> None:
            seen.append(await world.count("work_items", "state = 'queued'"))

        waking = replace(world.resources.database, wake=wake)
        intake = IntakeService(waking, world.tenant, world.resources.blobs, 1000)
        await intake.accept(world.collection, each(text_file("a")))
        assert seen == [1]


class TestLostBytes:
    async def test_of_unchanged_documents_are_stored_again(self, world: World) -> None:
        await world.put(a="A lantern.", b="A falcon.")
        lost, kept = sorted(world.blobs(), key=lambda path: "falcon" in path.read_text())
        before = kept.stat().st_mtime_ns
        lost.unlink()
        accepted = await world.put(a="A lantern.", b="A falcon.")
        assert [one.status for one in accepted.items] == [Verdict.UNCHANGED] * 2
        assert (lost.read_text(), kept.stat().st_mtime_ns) == ("A lantern.", before)
        assert len(world.blobs()) == 2

    async def test_of_a_deleted_document_are_not_stored_again(self, world: World) -> None:
        taken = (await world.put(a="A lantern.")).items[0]
        assert taken.document_id
        (lost,) = world.blobs()
        lost.unlink()
        await world.delete(taken.document_id)
        intake = IntakeService(world.resources.database, world.tenant, world.resources.blobs, 1000)
        await intake._store_again(taken.document_id, taken)
        assert world.blobs() == []


async def each(*incoming: Incoming) -> AsyncIterator[Incoming]:
    for one in incoming:
        yield one


class TestRejected:
    async def test_are_named_and_leave_nothing(self, world: World) -> None:
        accepted = await world.take(
            text_file("empty", b""),
            text_file("large", b"x" * (10 * 2**20 + 1)),
            text_file("fine"),
            text_file("fine", b"Another."),
        )
        codes = [one.error["code"] if one.error else None for one in accepted.items]
        assert codes == ["empty", "too_large", None, "duplicate"]
        assert [one.document_id is None for one in accepted.items] == [True, True, False, True]
        assert len(world.blobs()) == await world.count("files") == 1

    async def test_exactly_at_the_limit_is_taken(self, world: World) -> None:
        accepted = await world.take(text_file("large", b"x" * 10 * 2**20))
        assert [one.status for one in accepted.items] == [Verdict.ACCEPTED]

    async def test_without_a_collection_stores_nothing(self, world: World) -> None:
        with pytest.raises(NotFound):
            await world.take(text_file("a"), collection="nowhere")
        assert world.blobs() == []


class TestBrokenOff:
    async def test_by_the_sender_leaves_nothing(self, world: World) -> None:
        cut = Incoming("cut", bytes_of(b"x" * 1000, fault=RuntimeError("gone")))
        with pytest.raises(RuntimeError, match="gone"):
            await world.take(text_file("first"), cut)
        assert world.blobs() == []
        assert await world.count("documents") == await world.count("work_items", "kind = 'ingest'") == 0

    async def test_by_a_full_disk_leaves_nothing_half_done(self, world: World) -> None:
        full = Incoming("full", bytes_of(b"x", fault=OSError(28, "No space left on device")))
        with pytest.raises(StorageFull):
            await world.take(text_file("first"), full)
        assert world.blobs() == []
        assert await world.count("documents") == 0

    async def test_by_the_database_leaves_no_rows(self, world: World) -> None:
        engine = world.resources.database.engine.sync_engine

        def fail(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if "INSERT INTO work_items" in statement:
                raise ConnectionResetError("the database restarts")

        sqlalchemy_event.listen(engine, "before_cursor_execute", fail)
        try:
            with pytest.raises(DBAPIError):
                await world.put(a="A lantern.")
        finally:
            sqlalchemy_event.remove(engine, "before_cursor_execute", fail)
        assert await world.count("documents") == await world.count("jobs") == 0

    async def test_by_a_client_who_leaves_keeps_nothing(self, world: World) -> None:
        started = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b"x" * 2**10
                started.set()
                await asyncio.sleep(0.01)

        taking = asyncio.create_task(world.take(text_file("first"), Incoming("endless", endless())))
        await started.wait()
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)
        await world.all_due()  # what the store was still writing is collected with the upload
        await world.work_off()
        assert world.blobs() == []
        assert await world.count("documents") == 0


class Killed(BaseException):
    """The process ends here: nothing of ours runs any more."""


class Forgetful(IntakeService):
    """What is left of a request whose process is killed: nothing is cleaned up on the way out."""

    async def _discard(self, taken: object) -> None:
        """Killed processes do not."""


def dying_intake(world: World, *, grace_s: float = 3600) -> IntakeService:
    return Forgetful(world.resources.database, world.tenant, world.resources.blobs, 10 * 2**20, grace_s)


class TestKilledProcess:
    async def killed(self, world: World, *incoming: Incoming) -> None:
        with pytest.raises(Killed):
            await dying_intake(world).accept(world.collection, each(*incoming, dies()))

    async def test_leaves_bytes_that_are_collected_when_they_are_due(self, world: World) -> None:
        await self.killed(world, text_file("first"), text_file("second"))
        assert len(world.blobs()) == 2
        assert await world.drain().run(INGEST_QUEUE) == 0  # the request might still live
        await world.work_off()
        assert await world.count("work_items", "kind = 'erase_upload' AND state = 'queued'") == 1
        await world.all_due()
        await world.work_off()
        assert world.blobs() == []

    async def test_leaves_no_half_written_file(self, world: World) -> None:
        await self.killed(world, text_file("first"))
        (blob,) = world.blobs()
        blob.with_name(f"{new_id()}#1").write_bytes(b"half")
        await world.all_due()
        await world.work_off()
        assert [path for path in world.blob_folder.rglob("*") if "#" in path.name] == []

    async def test_after_the_commit_loses_nothing_when_the_bytes_without_a_row_are_collected(
        self, world: World
    ) -> None:
        intake = dying_intake(world)
        await world.put(known="A falcon.")
        same = text_file("known", b"A falcon.", title="known")
        accepted = await intake.accept(world.collection, each(same, text_file("fresh")))
        assert [one.status for one in accepted.items] == [Verdict.UNCHANGED, Verdict.ACCEPTED]
        assert len(world.blobs()) == 3
        await world.all_due()
        await world.work_off()
        assert len(world.blobs()) == await world.count("files") == 2
        assert (await world.document("fresh")).status is DocumentStatus.READY

    async def test_costs_a_request_that_ends_well_no_row(self, world: World) -> None:
        await world.put(a="A lantern.")
        assert await world.count("work_items", "kind = 'erase_upload'") == 0


class TestLongUpload:
    async def test_is_not_collected_while_its_request_lives(self, world: World) -> None:
        async def slow() -> AsyncIterator[bytes]:
            for _ in range(8):
                yield b"A lantern. "
                await asyncio.sleep(0.25)
                await world.drain().run(INGEST_QUEUE)

        intake = dying_intake(world, grace_s=1)
        accepted = await intake.accept(world.collection, each(text_file("first"), Incoming("slow", slow())))
        assert [one.status for one in accepted.items] == [Verdict.ACCEPTED] * 2
        await world.work_off()
        assert len(world.blobs()) == await world.count("files") == 2

    async def test_that_was_given_up_is_refused_as_a_whole(self, world: World) -> None:
        async def frozen() -> AsyncIterator[Incoming]:
            yield text_file("first")
            await world.all_due()  # as if it had stood still for longer than its bytes are kept
            await world.work_off()

        with pytest.raises(Unavailable, match="send it again"):
            await dying_intake(world).accept(world.collection, frozen())
        assert await world.count("documents") == 0
        assert world.blobs() == []

    async def test_whose_erasure_had_begun_is_refused_although_it_goes_on_later(self, world: World) -> None:
        async def frozen() -> AsyncIterator[Incoming]:
            yield text_file("first")
            await world.all_due()
            await world.drain(blobs=Stubborn(world.resources.blobs.store)).run(INGEST_QUEUE)

        with pytest.raises(Unavailable, match="send it again"):
            await dying_intake(world).accept(world.collection, frozen())
        await world.all_due()
        await world.work_off()
        assert world.blobs() == []


class Stubborn(Blobs):
    """A blob store that deletes nothing."""

    async def delete(self, key: str) -> None:
        raise Unavailable("The blob storage does not answer.")


def dies() -> Incoming:
    return Incoming("dies", bytes_of(b"x", fault=Killed()))  # type: ignore[arg-type]


class TestAtTheSameMoment:
    async def test_one_document_is_added_once(self, world: World) -> None:
        await asyncio.gather(*(world.put(a=prose(n)) for n in range(5)))
        await world.work_off()
        assert await world.count("documents") == 1
        assert await world.count("files") == len(world.blobs()) == 1
        assert (await world.document("a")).status is DocumentStatus.READY

    async def test_equal_uploads_leave_one_document(self, world: World) -> None:
        accepted = await asyncio.gather(*(world.put(a="A lantern.") for _ in range(5)))
        verdicts = sorted(one.items[0].status for one in accepted)
        assert verdicts == [Verdict.ACCEPTED] + [Verdict.UNCHANGED] * 4
        assert len(world.blobs()) == 1


class TestNames:
    @pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b", "..", "ä/ö", "x" * 500])
    async def test_never_become_paths(self, world: World, name: str) -> None:
        await world.take(text_file(name))
        (blob,) = world.blobs()
        assert blob.is_relative_to(world.blob_folder / str(world.tenant.org_id))
        assert blob.name.replace("-", "").isalnum()
