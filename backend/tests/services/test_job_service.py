"""Jobs, and the draining of the work table behind them."""

import asyncio
from collections.abc import Awaitable, Callable
from socket import gaierror
from time import monotonic
from typing import Any
from uuid import UUID

import pytest
import structlog
from sqlalchemy import event as sqlalchemy_event
from sqlalchemy import text
from structlog.testing import capture_logs

from app.core.constants import INGEST_QUEUE
from app.core.errors import AppError, Invalid, NotFound, Unavailable
from app.core.ids import new_id
from app.core.paging import PageRequest
from app.db.connection import open_engine
from app.db.postgres.models.jobs import Job, WorkItem, WorkKind, WorkState
from app.db.postgres.repositories.work import Claim, LeaseLost, WorkItems
from app.services import job_service
from app.services.job_service import Drain, JobService
from app.services.runs.claims import Claimer
from tests.factories import Factory
from tests.workers.world import World

pytestmark = pytest.mark.asyncio(loop_scope="session")
Handler = Callable[[Claim], Awaitable[None]]


class Queue:
    """A queue of its own, with handlers by kind."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.name = f"q-{new_id().hex}"
        self.failures: list[tuple[UUID, str]] = []
        self.job = new_id()

    async def open_job(self) -> None:
        tenant = self.world.tenant
        async with self.world.work() as session:
            session.add(Job(org_id=tenant.org_id, id=self.job, project_id=tenant.project, kind="test"))

    async def add(self, kind: str, *, in_job: bool = False, size_bytes: int = 0) -> UUID:
        item = new_id()
        tenant = self.world.tenant
        async with self.world.work() as session:
            session.add(
                WorkItem(
                    org_id=tenant.org_id,
                    id=item,
                    project_id=tenant.project,
                    queue=self.name,
                    kind=kind,
                    subject_id=new_id(),
                    job_id=self.job if in_job else None,
                    size_bytes=size_bytes,
                )
            )
        return item

    async def done(self, claim: Claim) -> None:
        async with self.world.work() as session:
            await WorkItems(session, self.world.tenant).finish(claim, WorkState.SUCCEEDED)

    async def failed(self, claim: Claim, reason: dict[str, Any]) -> None:
        self.failures.append((claim.id, reason["code"]))
        async with self.world.work() as session:
            await WorkItems(session, self.world.tenant).finish(claim, WorkState.FAILED, error=reason)

    def drain(self, handlers: dict[str, Handler], **fields: Any) -> Drain:
        given: dict[str, Any] = {"owner": "local:w", "lease_s": 5.0} | fields
        return Drain(
            database=self.world.resources.database,
            handlers={"done": self.done} | handlers,
            failed=self.failed,
            **given,
        )

    async def item(self, item: UUID) -> WorkItem:
        async with self.world.work() as session:
            return await WorkItems(session, self.world.tenant).get(item)


@pytest.fixture
def queue(world: World) -> Queue:
    return Queue(world)


def raising(error: BaseException) -> Handler:
    async def handler(claim: Claim) -> None:
        raise error

    return handler


class TestDrain:
    async def test_works_until_nothing_is_due(self, queue: Queue) -> None:
        items = [await queue.add("done") for _ in range(9)]
        assert await queue.drain({}).run(queue.name) == 9
        assert {(await queue.item(item)).state for item in items} == {WorkState.SUCCEEDED}

    async def test_works_on_several_at_once_but_no_more_than_told(self, queue: Queue) -> None:
        running: list[int] = [0]
        most = 0

        async def busy(claim: Claim) -> None:
            nonlocal most
            running[0] += 1
            most = max(most, running[0])
            await asyncio.sleep(0.03)
            running[0] -= 1
            await queue.done(claim)

        for _ in range(8):
            await queue.add("busy")
        await queue.drain({"busy": busy}, concurrency=3).run(queue.name)
        assert most == 3

    async def test_does_not_let_new_work_wait_behind_a_long_item(self, queue: Queue) -> None:
        opened = asyncio.Event()

        async def long(claim: Claim) -> None:
            await opened.wait()
            await queue.done(claim)

        await queue.add("long")
        draining = asyncio.create_task(queue.drain({"long": long}).run(queue.name))
        try:
            await asyncio.sleep(0.2)
            later = await queue.add("done")
            async with asyncio.timeout(5):
                while (await queue.item(later)).state is not WorkState.SUCCEEDED:
                    await asyncio.sleep(0.05)
            assert not draining.done()
        finally:
            opened.set()
            assert await draining == 2

    async def test_gives_a_failing_item_more_time_with_each_attempt(self, queue: Queue) -> None:
        item = await queue.add("fails")
        drain = queue.drain({"fails": raising(ZeroDivisionError("a bug"))}, max_attempts=9)
        delays = []
        for _ in range(3):
            await drain.run(queue.name)
            row = await queue.item(item)
            delays.append((row.due_at - row.updated_at).total_seconds())
            await queue.world.hurry()
        assert delays == [pytest.approx(2, abs=1), pytest.approx(4, abs=1), pytest.approx(8, abs=1)]

    async def test_waits_for_a_service_that_is_away_without_counting(self, queue: Queue) -> None:
        item = await queue.add("fails")
        drain = queue.drain({"fails": raising(Unavailable("away"))})
        for _ in range(5):
            await drain.run(queue.name)
            await queue.world.hurry()
        row = await queue.item(item)
        assert (row.state, row.attempts, queue.failures) == (WorkState.QUEUED, 0, [])

    async def test_is_logged_with_all_that_it_is_about(
        self, queue: Queue, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            job_service, "logger", structlog.get_logger()
        )  # the usual one may be bound already
        taken = await queue.world.put(a="A lantern.")
        collection = (await queue.world.document("a")).collection_id
        with capture_logs() as logs:
            drain = queue.drain({WorkKind.INGEST: raising(Unavailable("away"))})
            await drain.run(INGEST_QUEUE)
        failed = [line for line in logs if line["event"] == "item_failed"]
        line = next(line for line in failed if line.get("document") == str(taken.items[0].document_id))
        about = {name: line[name] for name in ("job", "document", "collection", "code")}
        assert about == {
            "job": str(taken.job_id),
            "document": str(taken.items[0].document_id),
            "collection": str(collection),
            "code": "unavailable",
        }

    async def test_waits_for_the_database_without_counting(self, queue: Queue) -> None:
        async def ask_in_vain(claim: Claim) -> None:
            async with open_engine("postgresql://orrery_app:x@127.0.0.1:9/orrery") as engine:
                await engine.connect()

        item = await queue.add("fails")
        for _ in range(5):
            await queue.drain({"fails": ask_in_vain}).run(queue.name)
            await queue.world.hurry()
        row = await queue.item(item)
        assert (row.state, row.attempts, queue.failures) == (WorkState.QUEUED, 0, [])
        assert row.error
        assert row.error["message"] == "The database does not answer right now."

    @pytest.mark.parametrize(
        "stray", [TimeoutError(), ConnectionResetError("reset"), gaierror("no such host")]
    )
    async def test_counts_time_outs_and_broken_connections_of_others(
        self, queue: Queue, stray: Exception
    ) -> None:
        item = await queue.add("fails")
        for _ in range(4):
            await queue.drain({"fails": raising(stray)}).run(queue.name)
            await queue.world.hurry()
        assert queue.failures == [(item, "internal_error")]

    async def test_loses_patience_with_a_service_in_the_end(self, queue: Queue) -> None:
        item = await queue.add("fails")
        drain = queue.drain({"fails": raising(Unavailable("away"))}, patience_s=0)
        for _ in range(4):
            await drain.run(queue.name)
            await queue.world.hurry()
        assert queue.failures == [(item, "unavailable")]

    async def test_leaves_kinds_it_does_not_know_to_others(self, queue: Queue) -> None:
        item = await queue.add("newer")
        assert await queue.drain({}).run(queue.name) == 0
        assert (await queue.item(item)).state is WorkState.QUEUED

    async def test_ends_an_item_whose_subject_is_gone(self, queue: Queue) -> None:
        item = await queue.add("gone")
        await queue.drain({"gone": raising(LeaseLost("deleted"))}).run(queue.name)
        assert (await queue.item(item)).state is WorkState.CANCELLED

    async def test_buries_an_item_after_its_last_attempt(self, queue: Queue) -> None:
        item = await queue.add("fails")
        drain = queue.drain({"fails": raising(ZeroDivisionError("a bug"))})
        for _ in range(4):
            await drain.run(queue.name)
            await queue.world.hurry()
        assert queue.failures == [(item, "internal_error")]
        assert (await queue.item(item)).attempts == 3

    async def test_shows_nothing_of_our_bugs(self, queue: Queue) -> None:
        item = await queue.add("fails")
        await queue.drain({"fails": raising(ZeroDivisionError("secret"))}, max_attempts=1).run(queue.name)
        assert "secret" not in str((await queue.item(item)).error)

    async def test_buries_at_once_what_can_never_succeed(self, queue: Queue) -> None:
        item = await queue.add("fails")
        await queue.drain({"fails": raising(Invalid("wrong"))}).run(queue.name)
        assert queue.failures == [(item, "invalid")]

    async def test_never_buries_promises(self, queue: Queue) -> None:
        item = await queue.add("fails")
        drain = queue.drain({"fails": raising(AppError("broken"))}, endless=frozenset({"fails"}))
        for _ in range(6):
            await drain.run(queue.name)
            await queue.world.hurry()
        assert queue.failures == []
        assert (await queue.item(item)).state is WorkState.QUEUED

    async def test_buries_what_has_killed_its_worker_too_often(self, queue: Queue) -> None:
        item = await queue.add("kills")
        for _ in range(4):  # the first time it is not charged: it might have been another
            await queue.drain({"kills": raising(asyncio.CancelledError())}).run(queue.name)
            await queue.world.hurry()
        await queue.drain({"kills": queue.done}).run(queue.name)
        assert queue.failures == [(item, "worker_died")]

    async def test_forgets_an_item_that_was_taken_away(self, queue: Queue) -> None:
        item = await queue.add("lost")
        assert await queue.drain({"lost": raising(LeaseLost("gone"))}).run(queue.name) == 1
        assert (await queue.item(item)).error is None

    async def test_stops_work_on_an_item_that_is_cancelled(self, queue: Queue) -> None:
        stopped = asyncio.Event()

        async def long(claim: Claim) -> None:
            try:
                await asyncio.sleep(60)
            finally:
                stopped.set()

        item = await queue.add("long")
        draining = asyncio.create_task(queue.drain({"long": long}, lease_s=0.6).run(queue.name))
        await asyncio.sleep(0.2)
        async with queue.world.work() as session:
            await WorkItems(session, queue.world.tenant).cancel_open([(await queue.item(item)).subject_id])
        async with asyncio.timeout(5):
            await stopped.wait()
            await draining
        assert (await queue.item(item)).state is WorkState.CANCELLED

    async def test_keeps_an_item_for_longer_than_a_lease(self, queue: Queue) -> None:
        async def slow(claim: Claim) -> None:
            await asyncio.sleep(1.2)
            await queue.done(claim)

        item = await queue.add("slow")
        one, two = (queue.drain({"slow": slow}, owner=f"local:{n}", lease_s=0.6) for n in range(2))
        first = asyncio.create_task(one.run(queue.name))
        await asyncio.sleep(0.9)
        assert await two.run(queue.name) == 0
        assert await first == 1
        assert (await queue.item(item)).attempts == 1

    async def test_survives_a_database_that_is_away_when_an_item_fails(self, queue: Queue) -> None:
        engine = queue.world.resources.database.engine.sync_engine

        def away(connection: object, cursor: object, statement: str, *rest: object) -> None:
            if "attempts=(work_items.attempts - " in statement:
                raise ConnectionResetError("the database restarts")

        item = await queue.add("fails")
        await queue.add("done")
        sqlalchemy_event.listen(engine, "before_cursor_execute", away)
        try:
            assert await queue.drain({"fails": raising(Unavailable("x"))}).run(queue.name) == 2
        finally:
            sqlalchemy_event.remove(engine, "before_cursor_execute", away)
        assert (await queue.item(item)).state is WorkState.RUNNING
        await queue.world.hurry()
        await queue.drain({"fails": queue.done}).run(queue.name)
        assert (await queue.item(item)).state is WorkState.SUCCEEDED

    async def test_that_is_stopped_lets_go_at_once(self, queue: Queue) -> None:
        await queue.add("long")
        draining = asyncio.create_task(queue.drain({"long": lambda _: asyncio.sleep(60)}).run(queue.name))
        await asyncio.sleep(0.2)
        began = monotonic()
        draining.cancel()
        await asyncio.gather(draining, return_exceptions=True)
        assert monotonic() - began < 2


class TestGuard:
    @pytest.mark.parametrize("loss", ["fence = fence + 1", "state = 'cancelled'", "state = 'queued'"])
    async def test_lets_nobody_write_who_holds_the_item_no_longer(self, queue: Queue, loss: str) -> None:
        await queue.add("x")
        async with queue.world.resources.database.system_work() as session:
            claim = await Claimer(queue.name, "local:w", 5, {"x"}).waiting(session)
        assert claim
        async with queue.world.work() as session:
            await session.execute(text(f"UPDATE work_items SET {loss} WHERE id = :id"), {"id": claim.id})
        async with queue.world.work() as session:
            items = WorkItems(session, queue.world.tenant)
            with pytest.raises(LeaseLost):
                await items.guard(claim, stage="late")
            with pytest.raises(LeaseLost):
                await items.finish(claim, WorkState.SUCCEEDED)
            await items.retry_later(claim, delay_s=1, error={"code": "late"})
        row = await queue.item(claim.id)
        assert (row.stage, row.error, row.finished_at) == (None, None, None)


class TestJob:
    @pytest.mark.parametrize(
        ("states", "status"),
        [
            (["queued", "queued"], WorkState.QUEUED),
            (["queued", "succeeded"], WorkState.RUNNING),
            (["running", "failed"], WorkState.RUNNING),
            (["succeeded", "failed", "cancelled"], WorkState.FAILED),
            (["succeeded", "cancelled"], WorkState.CANCELLED),
            (["succeeded"], WorkState.SUCCEEDED),
            ([], WorkState.SUCCEEDED),
        ],
    )
    async def test_has_the_state_of_its_items(
        self, queue: Queue, states: list[str], status: WorkState
    ) -> None:
        await queue.open_job()
        for state in states:
            item = await queue.add("x", in_job=True)
            async with queue.world.work() as session:
                await session.execute(
                    text("UPDATE work_items SET state = :state WHERE id = :id"), {"state": state, "id": item}
                )
        found = await JobService(queue.world.resources.database, queue.world.tenant).get(queue.job)
        assert (found.status, found.counts.total) == (status, len(states))

    async def test_says_how_many_items_failed(self, queue: Queue) -> None:
        await queue.open_job()
        for kind in ("fails", "done", "fails"):
            await queue.add(kind, in_job=True)
        await queue.drain({"fails": raising(Invalid("x"))}).run(queue.name)
        found = await JobService(queue.world.resources.database, queue.world.tenant).get(queue.job)
        assert found.error == {"code": "items_failed", "message": "2 of 3 items failed"}

    async def test_pages_through_its_items(self, queue: Queue) -> None:
        await queue.open_job()
        added = [await queue.add("x", in_job=True) for _ in range(5)]
        await queue.add("x")
        service = JobService(queue.world.resources.database, queue.world.tenant)
        first = await service.items(queue.job, PageRequest(limit=3))
        rest = await service.items(queue.job, PageRequest(limit=3, cursor=first.next_cursor))
        assert [row.id for row in first.items + rest.items] == added[::-1]
        assert rest.next_cursor is None

    async def test_of_another_organization_is_missing(self, queue: Queue, world: World) -> None:
        await queue.open_job()
        stranger = JobService(world.resources.database, (await Factory(world.resources).member()).tenant)
        with pytest.raises(NotFound):
            await stranger.get(queue.job)
