"""Jobs over HTTP: progress counted from their items."""

from __future__ import annotations

import httpx2
import pytest

from app.core.ids import new_id
from tests.api.calls import API, add_texts, new_collection, ok, problem, work
from tests.conftest import Running

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


class TestList:
    async def test_shows_the_newest_first(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        ids = [(await add_texts(client, slug, GOOD | {"title": f"Text {n}"}))["job_id"] for n in range(2)]
        assert [job["id"] for job in ok(await client.get(f"{API}/jobs"))["items"]] == ids[::-1]
