"""Jobs over HTTP: progress counted from their items."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any

import httpx2
import pytest
from sqlalchemy import text

from app.core.errors import Invalid
from app.core.ids import new_id
from app.db.postgres.models.jobs import JobKind, WorkKind, WorkState
from app.db.postgres.repositories.work import Jobs, WorkItems
from app.services.ingestion_service import IngestionService
from tests.api.calls import (
    API,
    Frame,
    add_texts,
    arriving,
    frames,
    new_collection,
    ok,
    pointers,
    problem,
    work,
)
from tests.factories import Member
from tests.fixtures import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

GOOD = {"title": "Good", "text": "A sentence about gardens."}
NO_PDF = b"%PDF-1.7 and then nothing that a parser could use"


class TestGet:
    async def test_before_anybody_works_is_queued(self, client: httpx2.AsyncClient) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD)
        job = ok(await client.get(f"{API}/jobs/{taken['job_id']}"))
        assert (job["kind"], job["status"], job["error"]) == ("ingestion", "queued", None)
        assert (job["progress"]["done"], job["progress"]["total"]) == (0, 1)

    async def test_when_all_is_done_has_succeeded(self, client: httpx2.AsyncClient, server: Running) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD, GOOD | {"title": "Second"})
        await work(server)
        job = ok(await client.get(f"{API}/jobs/{taken['job_id']}"))
        assert job["status"] == "succeeded"
        assert job["progress"] == {"done": 2, "failed": 0, "cancelled": 0, "skipped": 0, "total": 2}

    async def test_with_a_failed_item_has_failed(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        files = [("files", ("good.txt", b"A sentence.")), ("files", ("bad.pdf", NO_PDF))]
        taken = ok(await client.post(f"{API}/collections/{slug}/documents", files=files), 202)
        await work(server)
        job = ok(await client.get(f"{API}/jobs/{taken['job_id']}"))
        assert (job["status"], job["error"]["code"]) == ("failed", "items_failed")
        assert (job["progress"]["done"], job["progress"]["failed"]) == (2, 1)

    async def test_counts_what_was_unchanged_as_skipped(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        await add_texts(client, slug, GOOD)
        await work(server)
        taken = await add_texts(client, slug, GOOD)
        job = ok(await client.get(f"{API}/jobs/{taken['job_id']}"))
        assert (job["status"], job["progress"]["skipped"], job["progress"]["total"]) == ("succeeded", 1, 0)

    async def test_of_an_unknown_job_is_404(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/jobs/{new_id()}"), 404, "not_found")
        problem(await client.get(f"{API}/jobs/{new_id()}/items"), 404, "not_found")


class TestItems:
    async def test_say_why_one_failed(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        files = [("files", ("bad.pdf", NO_PDF))]
        taken = ok(await client.post(f"{API}/collections/{slug}/documents", files=files), 202)
        await work(server)
        (item,) = ok(await client.get(f"{API}/jobs/{taken['job_id']}/items"))["items"]
        assert (item["subject_id"], item["status"]) == (taken["items"][0]["document_id"], "failed")
        assert item["error"]["code"]
        assert item["error"]["message"]

    async def test_come_in_pages(self, client: httpx2.AsyncClient) -> None:
        items = [GOOD | {"title": f"Text {n}"} for n in range(3)]
        taken = await add_texts(client, await new_collection(client), *items)
        path = f"{API}/jobs/{taken['job_id']}/items"
        first = ok(await client.get(path, params={"limit": 2}))
        last = ok(await client.get(path, params={"limit": 2, "cursor": first["next_cursor"]}))
        shown = {item["subject_id"] for item in first["items"] + last["items"]}
        assert (len(first["items"]), last["next_cursor"]) == (2, None)
        assert shown == {item["document_id"] for item in taken["items"]}


class TestStatus:
    @pytest.mark.parametrize("states", [s for n in (0, 1, 2, 3) for s in combinations(WorkState, n)])
    async def test_of_a_list_is_what_is_counted(
        self, client: httpx2.AsyncClient, server: Running, member: Member, states: tuple[WorkState, ...]
    ) -> None:
        """The status in SQL, which lists are filtered by, agrees with the one that is shown."""
        async with server.resources.database.unit_of_work(member.tenant) as session:
            job = await Jobs(session, member.tenant).open(JobKind.INGESTION, new_id())
            items = WorkItems(session, member.tenant)
            await items.queue_all(WorkKind.REWEIGH, {new_id(): {} for _ in states}, job_id=job.id)
            rows = await items.many(items.visible())
            for row, state in zip(rows, states, strict=True):
                row.state, row.queue = state, "nobody"
        shown = ok(await client.get(f"{API}/jobs/{job.id}"))["status"]
        for status in WorkState:
            found = ok(await client.get(f"{API}/jobs", params={"status": status}))["items"]
            assert bool(found) == (status == shown)


class TestEta:
    async def test_is_measured_by_what_was_done(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        texts = [GOOD | {"title": f"Text {n}"} for n in range(4)]
        taken = await add_texts(client, await new_collection(client), *texts)
        path = f"{API}/jobs/{taken['job_id']}"
        assert ok(await client.get(path))["eta_s"] is None
        done = (
            "UPDATE work_items SET state = 'succeeded', started_at = now() - interval '20 seconds', "
            "finished_at = now() WHERE id IN (SELECT id FROM work_items ORDER BY id LIMIT 2)"
        )
        async with server.resources.database.unit_of_work(member.tenant) as session:
            await session.execute(text(done))
        assert 20 <= ok(await client.get(path))["eta_s"] < 60
        await work(server)
        assert ok(await client.get(path))["eta_s"] is None


class TestEvents:
    @pytest.fixture(autouse=True)
    def quick(self, server: Running) -> Iterator[None]:
        """Looks at jobs often, so that nobody waits."""
        settings = server.resources.settings
        usual = settings.job_poll_interval_s, settings.sse_heartbeat_s
        settings.job_poll_interval_s, settings.sse_heartbeat_s = 0.02, 0.05
        yield
        settings.job_poll_interval_s, settings.sse_heartbeat_s = usual

    async def test_show_the_job_until_it_has_ended(self, client: httpx2.AsyncClient, server: Running) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD)
        seen: list[Frame] = []
        async with client.stream("GET", f"{API}/jobs/{taken['job_id']}/events") as response:
            async for frame in arriving(response):
                seen.append(frame)
                if len(seen) == 1:
                    await work(server)
        assert [frame.event for frame in seen] == ["snapshot"] * (len(seen) - 1) + ["end"]
        assert (seen[0].data["status"], seen[-1].data["status"]) == ("queued", "succeeded")
        assert seen[-1].data == ok(await client.get(f"{API}/jobs/{taken['job_id']}"))

    async def test_differ_from_one_to_the_next(self, client: httpx2.AsyncClient, server: Running) -> None:
        texts = [GOOD | {"title": f"Text {n}"} for n in range(5)]
        taken = await add_texts(client, await new_collection(client), *texts)
        working = asyncio.create_task(work(server))
        seen = frames((await client.get(f"{API}/jobs/{taken['job_id']}/events")).text)
        await working
        assert all(one.id != other.id for one, other in pairwise(seen))
        done = [frame.data["progress"]["done"] for frame in seen]
        assert (done, done[-1]) == (sorted(done), 5)

    async def test_that_were_seen_are_skipped(self, client: httpx2.AsyncClient, server: Running) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD)
        path = f"{API}/jobs/{taken['job_id']}/events"
        async with client.stream("GET", path) as response:
            first = await anext(arriving(response))
        await work(server)
        (last,) = frames((await client.get(path, headers={"Last-Event-ID": str(first.id)})).text)
        assert last.event == "end"
        assert (await client.get(path, headers={"Last-Event-ID": str(last.id)})).text == ""

    async def test_of_a_job_that_failed_say_so(self, client: httpx2.AsyncClient, server: Running) -> None:
        job_id = await failed_job(client, server)
        (frame,) = frames((await client.get(f"{API}/jobs/{job_id}/events")).text)
        assert (frame.event, frame.data["error"]["code"]) == ("end", "items_failed")

    async def test_beat_while_nothing_happens(self, client: httpx2.AsyncClient) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD)
        async with client.stream("GET", f"{API}/jobs/{taken['job_id']}/events") as response:
            async for line in response.aiter_lines():
                if line.startswith(": heartbeat"):
                    break
        assert line.startswith(": heartbeat")

    async def test_of_an_unknown_job_are_a_problem_and_no_stream(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/jobs/{new_id()}/events"), 404, "not_found")

    @pytest.mark.parametrize("mark", ["-1", "x", str(2**48)])
    async def test_refuse_a_mark_that_is_none(self, client: httpx2.AsyncClient, mark: str) -> None:
        response = await client.get(f"{API}/jobs/{new_id()}/events", headers={"Last-Event-ID": mark})
        assert pointers(response) == ["/header/last-event-id"]


async def failed_job(client: httpx2.AsyncClient, server: Running) -> str:
    """The id of a job of two files, of which one failed."""
    slug = await new_collection(client)
    files = [("files", ("good.txt", b"A sentence.")), ("files", ("bad.pdf", NO_PDF))]
    taken = ok(await client.post(f"{API}/collections/{slug}/documents", files=files), 202)
    await work(server)
    return str(taken["job_id"])


async def documents(client: httpx2.AsyncClient, job_id: str) -> list[dict[str, Any]]:
    """Of a job's items, by name."""
    items = ok(await client.get(f"{API}/jobs/{job_id}/items"))["items"]
    found = [ok(await client.get(f"{API}/documents/{item['subject_id']}")) for item in items]
    return sorted(found, key=lambda document: str(document["name"]))


class TestCancel:
    async def test_ends_what_waits(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        taken = await add_texts(client, slug, GOOD, GOOD | {"title": "Second"})
        job = ok(await client.post(f"{API}/jobs/{taken['job_id']}/cancel"))
        assert (job["status"], job["error"], job["eta_s"]) == ("cancelled", None, None)
        assert (job["progress"]["done"], job["progress"]["cancelled"]) == (2, 2)
        found = await documents(client, taken["job_id"])
        assert [(one["status"], one["error"]["code"]) for one in found] == [("cancelled", "cancelled")] * 2
        await work(server)
        assert ok(await client.get(f"{API}/collections/{slug}"))["documents"] == {"cancelled": 2}

    async def test_takes_running_items_from_their_worker(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slug = await new_collection(client)
        taken = await add_texts(client, slug, GOOD)
        publish = IngestionService._publish

        async def cancelled_first(self: IngestionService, *arguments: Any) -> None:
            job = ok(await client.post(f"{API}/jobs/{taken['job_id']}/cancel"))
            assert job["status"] == "cancelled"
            await publish(self, *arguments)

        monkeypatch.setattr(IngestionService, "_publish", cancelled_first)
        await work(server)
        (document,) = await documents(client, taken["job_id"])
        assert (document["status"], document["chunk_count"]) == ("cancelled", 0)
        for mode in ("hybrid", "dense", "keyword"):
            body = {"collections": [slug], "query": "gardens", "mode": mode}
            assert ok(await client.post(f"{API}/search", json=body))["items"] == []

    async def test_leaves_the_version_before_searchable(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        await add_texts(client, slug, GOOD)
        await work(server)
        taken = await add_texts(client, slug, GOOD | {"text": "A sentence about submarines."})
        ok(await client.post(f"{API}/jobs/{taken['job_id']}/cancel"))
        body = {"collections": [slug], "query": "gardens", "mode": "keyword"}
        assert len(ok(await client.post(f"{API}/search", json=body))["items"]) == 1

    async def test_leaves_what_has_ended_as_it_is(self, client: httpx2.AsyncClient, server: Running) -> None:
        job_id = await failed_job(client, server)
        before = ok(await client.get(f"{API}/jobs/{job_id}"))
        for _ in range(2):
            assert ok(await client.post(f"{API}/jobs/{job_id}/cancel")) == before

    async def test_of_an_erasure_is_refused(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        job_id = ok(await client.delete(f"{API}/collections/{slug}"), 202)["job_id"]
        problem(await client.post(f"{API}/jobs/{job_id}/cancel"), 409, "not_cancellable")
        assert ok(await client.get(f"{API}/jobs/{job_id}"))["status"] == "queued"

    async def test_while_workers_work_agrees_with_the_documents(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        texts = [GOOD | {"title": f"Text {n}"} for n in range(12)]
        taken = await add_texts(client, await new_collection(client), *texts)
        working = asyncio.create_task(work(server))
        path = f"{API}/jobs/{taken['job_id']}"
        async with asyncio.timeout(60):
            while not ok(await client.get(path))["progress"]["done"]:
                await asyncio.sleep(0.01)
        job = ok(await client.post(f"{path}/cancel"))
        await working
        assert ok(await client.get(path)) == job
        statuses = Counter(document["status"] for document in await documents(client, taken["job_id"]))
        assert statuses["cancelled"] == job["progress"]["cancelled"]
        assert statuses["ready"] == 12 - job["progress"]["cancelled"]


class TestRetry:
    async def test_tries_failed_items_again_only(self, client: httpx2.AsyncClient, server: Running) -> None:
        job_id = await failed_job(client, server)
        job = ok(await client.post(f"{API}/jobs/{job_id}/retry"), 202)
        assert (job["status"], job["error"], job["progress"]["done"]) == ("running", None, 1)
        assert [one["status"] for one in await documents(client, job_id)] == ["accepted", "ready"]
        items = ok(await client.get(f"{API}/jobs/{job_id}/items", params={"status": "queued"}))["items"]
        assert [(item["attempts"], item["error"], item["finished_at"]) for item in items] == [(0, None, None)]
        await work(server)
        assert ok(await client.get(f"{API}/jobs/{job_id}"))["status"] == "failed"

    async def test_succeeds_once_the_cause_is_gone(
        self, client: httpx2.AsyncClient, server: Running, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def refusing(*_: Any, **__: Any) -> None:
            raise Invalid("Not today.")

        slug = await new_collection(client)
        with monkeypatch.context() as patched:
            patched.setattr(IngestionService, "_chunked", refusing)
            taken = await add_texts(client, slug, GOOD)
            await work(server)
        path = f"{API}/jobs/{taken['job_id']}"
        assert ok(await client.get(path))["status"] == "failed"
        ok(await client.post(f"{path}/retry"), 202)
        await work(server)
        assert ok(await client.get(path))["status"] == "succeeded"
        assert ok(await client.get(f"{API}/collections/{slug}"))["documents"] == {"ready": 1}

    async def test_takes_up_what_was_cancelled(self, client: httpx2.AsyncClient, server: Running) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD)
        path = f"{API}/jobs/{taken['job_id']}"
        ok(await client.post(f"{path}/cancel"))
        ok(await client.post(f"{path}/retry"), 202)
        await work(server)
        assert ok(await client.get(path))["status"] == "succeeded"

    async def test_without_anything_failed_is_a_conflict(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        taken = await add_texts(client, await new_collection(client), GOOD)
        path = f"{API}/jobs/{taken['job_id']}/retry"
        problem(await client.post(path), 409, "nothing_to_retry")
        await work(server)
        problem(await client.post(path), 409, "nothing_to_retry")

    async def test_of_what_was_overtaken_is_a_conflict(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        replaced = await add_texts(client, slug, GOOD)
        deleted = await add_texts(client, slug, GOOD | {"title": "Deleted"})
        await add_texts(client, slug, GOOD | {"text": "Newer."})
        ok(await client.delete(f"{API}/documents/{deleted['items'][0]['document_id']}"), 202)
        await work(server)
        for taken in (replaced, deleted):
            path = f"{API}/jobs/{taken['job_id']}"
            assert ok(await client.get(path))["status"] == "cancelled"
            problem(await client.post(f"{path}/retry"), 409, "nothing_to_retry")

    async def test_twice_at_once_queues_once(self, client: httpx2.AsyncClient, server: Running) -> None:
        job_id = await failed_job(client, server)
        answers = await asyncio.gather(*(client.post(f"{API}/jobs/{job_id}/retry") for _ in range(4)))
        assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409]


class TestList:
    async def test_shows_the_newest_first(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        ids = [(await add_texts(client, slug, GOOD | {"title": f"Text {n}"}))["job_id"] for n in range(2)]
        assert [job["id"] for job in ok(await client.get(f"{API}/jobs"))["items"]] == ids[::-1]
