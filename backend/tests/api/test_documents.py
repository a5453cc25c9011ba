"""Documents over HTTP: listed, read back, downloaded, deleted from every store."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import pytest
from sqlalchemy import text

from app.core.config import Settings
from app.core.constants import INGEST_QUEUE
from app.core.ids import new_id
from app.services.ingestion_service import IngestionService
from tests.api.calls import API, add_texts, finished, new_collection, ok, pointers, problem, work
from tests.factories import Member
from tests.fixtures import Running

pytestmark = pytest.mark.asyncio(loop_scope="session")

GARDEN = {
    "title": "Gärten 🌱",
    "text": "Die Gärten sind groß. 🌱🌿 Every garden needs water in summer. " * 60,
    "metadata": {"year": 2026, "tags": ["a", "b"]},
}
TABLES = ("documents", "document_versions", "chunks", "files", "vector_entries")


async def upload(client: httpx2.AsyncClient, collection: str, name: str, content: bytes) -> str:
    """The id of a document of one uploaded file."""
    files = [("files", (name, content))]
    taken = ok(await client.post(f"{API}/collections/{collection}/documents", files=files), 202)
    return str(taken["items"][0]["document_id"])


async def rows(server: Running, member: Member) -> dict[str, int]:
    """How many rows of the member's organization each store of documents has."""
    async with server.resources.database.unit_of_work(member.tenant) as session:
        return {
            table: (await session.execute(text(f"SELECT count(*) FROM {table}"))).scalar_one()
            for table in TABLES
        }


async def payloads(server: Running, member: Member) -> list[Any]:
    """What filters see of the member's documents."""
    async with server.resources.database.unit_of_work(member.tenant) as session:
        found = await session.execute(text("SELECT DISTINCT payload FROM vector_entries"))
        return list(found.scalars())


def blobs(settings: Settings, member: Member) -> list[Path]:
    folder = Path(settings.blob_url or "") / str(member.tenant.org_id)
    return [path for path in folder.rglob("*") if path.is_file()]


class TestGet:
    async def test_shows_what_was_said_of_it(self, client: httpx2.AsyncClient, server: Running) -> None:
        taken = await add_texts(client, await new_collection(client), GARDEN | {"external_id": "garden-1"})
        await work(server)
        document = ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}"))
        assert (document["status"], document["error"]) == ("ready", None)
        assert (document["external_id"], document["title"]) == ("garden-1", "Gärten 🌱")
        assert document["metadata"] == GARDEN["metadata"]
        assert document["chunk_count"] > 1

    async def test_before_anybody_works_is_accepted(self, client: httpx2.AsyncClient) -> None:
        taken = await add_texts(client, await new_collection(client), GARDEN)
        document = ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}"))
        assert (document["status"], document["chunk_count"]) == ("accepted", 0)

    async def test_says_why_it_failed(self, client: httpx2.AsyncClient, server: Running) -> None:
        document_id = await upload(client, await new_collection(client), "bad.pdf", b"%PDF-1.7 no more")
        await work(server)
        document = ok(await client.get(f"{API}/documents/{document_id}"))
        assert (document["status"], document["error"]["code"]) == ("failed", "corrupt")

    @pytest.mark.parametrize("part", ["", "/text", "/original"])
    async def test_of_what_is_not_there_is_404(self, client: httpx2.AsyncClient, part: str) -> None:
        problem(await client.get(f"{API}/documents/{new_id()}{part}"), 404, "not_found")

    async def test_refuses_what_is_no_id(self, client: httpx2.AsyncClient) -> None:
        assert pointers(await client.get(f"{API}/documents/handbook")) == ["/path/document_id"]


class TestText:
    async def test_has_chunks_that_are_slices_of_it(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        taken = await add_texts(client, await new_collection(client), GARDEN)
        await work(server)
        read = ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}/text"))
        assert [chunk["ordinal"] for chunk in read["chunks"]] == list(range(len(read["chunks"])))
        assert len(read["chunks"]) == read["document"]["chunk_count"] > 1
        for chunk in read["chunks"]:
            assert chunk["text"] == read["text"][chunk["start"] : chunk["end"]]

    async def test_keeps_every_word(self, client: httpx2.AsyncClient, server: Running) -> None:
        taken = await add_texts(client, await new_collection(client), GARDEN)
        await work(server)
        read = ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}/text"))
        assert read["text"].split() == str(GARDEN["text"]).split()

    async def test_is_null_before_it_is_ready(self, client: httpx2.AsyncClient) -> None:
        taken = await add_texts(client, await new_collection(client), GARDEN)
        read = ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}/text"))
        assert (read["text"], read["chunks"]) == (None, [])


class TestOriginal:
    async def test_is_what_was_uploaded_byte_for_byte(self, client: httpx2.AsyncClient) -> None:
        content = bytes(range(256)) * 5000
        document_id = await upload(client, await new_collection(client), "noise.bin", content)
        response = await client.get(f"{API}/documents/{document_id}/original")
        assert response.content == content

    async def test_that_is_lost_is_told_before_the_answer_begins_and_comes_back_with_the_next_upload(
        self, client: httpx2.AsyncClient, settings: Settings, member: Member
    ) -> None:
        slug = await new_collection(client)
        document_id = await upload(client, slug, "note.txt", b"A lantern.")
        path = f"{API}/documents/{document_id}/original"
        (blob,) = blobs(settings, member)
        for damaged in (blob.unlink, lambda: blob.write_bytes(b"half")):
            damaged()
            detail = problem(await client.get(path), 500, "blob_missing")["detail"]
            assert "upload 'note.txt' again" in detail
            assert str(blob.parent) not in detail
            assert await upload(client, slug, "note.txt", b"A lantern.") == document_id
            assert (await client.get(path)).content == b"A lantern."
        assert blobs(settings, member) == [blob]

    async def test_is_always_a_download(self, client: httpx2.AsyncClient) -> None:
        name = 'a "b"; ü.html'
        document_id = await upload(client, await new_collection(client), name, b"<script>alert(1)</script>")
        headers = (await client.get(f"{API}/documents/{document_id}/original")).headers
        assert headers["Content-Type"] == "application/octet-stream"
        assert headers["Content-Disposition"].startswith("attachment; filename*=UTF-8''a%20")
        assert headers["X-Content-Type-Options"] == "nosniff"


class TestList:
    async def test_comes_in_pages_newest_first(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        ids = [await upload(client, slug, f"{n}.txt", b"text %d" % n) for n in range(3)]
        path = f"{API}/collections/{slug}/documents"
        first = ok(await client.get(path, params={"limit": 2}))
        last = ok(await client.get(path, params={"limit": 2, "cursor": first["next_cursor"]}))
        assert [row["id"] for row in first["items"] + last["items"]] == ids[::-1]
        assert last["next_cursor"] is None

    async def test_filters_by_status(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        good = await upload(client, slug, "good.txt", b"A sentence.")
        bad = await upload(client, slug, "bad.pdf", b"%PDF-1.7 no more")
        await work(server)
        path = f"{API}/collections/{slug}/documents"
        for status, expected in (("ready", [good]), ("failed", [bad]), ("accepted", [])):
            page = ok(await client.get(path, params={"status": status}))
            assert [row["id"] for row in page["items"]] == expected

    async def test_refuses_an_unknown_status(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        response = await client.get(f"{API}/collections/{slug}/documents", params={"status": "done"})
        assert pointers(response) == ["/query/status/0"]
        assert "'ready'" in problem(response, 422, "invalid")["detail"]

    async def test_shows_one_collection_only(self, client: httpx2.AsyncClient) -> None:
        one, other = await new_collection(client), await new_collection(client)
        await upload(client, one, "a.txt", b"text")
        assert ok(await client.get(f"{API}/collections/{other}/documents"))["items"] == []


class TestUpdate:
    async def made(self, client: httpx2.AsyncClient, server: Running) -> tuple[str, str]:
        """A collection, and a document in it that is ready."""
        slug = await new_collection(client)
        taken = await add_texts(client, slug, GARDEN)
        await work(server)
        return slug, f"{API}/documents/{taken['items'][0]['document_id']}"

    async def test_merges_metadata(self, client: httpx2.AsyncClient, server: Running) -> None:
        _, path = await self.made(client, server)
        patch = {"metadata": {"year": None, "tags": ["c"], "author": {"name": "Ada"}}}
        changed = ok(await client.patch(path, json=patch))
        assert changed["metadata"] == {"tags": ["c"], "author": {"name": "Ada"}}
        assert ok(await client.get(path)) == changed
        assert ok(await client.patch(path, json={"metadata": None}))["metadata"] == {}

    async def test_of_metadata_shows_in_searches_and_filters_at_once(
        self, client: httpx2.AsyncClient, server: Running, member: Member
    ) -> None:
        slug, path = await self.made(client, server)
        changed = ok(await client.patch(path, json={"metadata": {"year": 2027}}))
        assert changed["status"] == "ready"
        body = {"collections": [slug], "query": "garden water"}
        found = ok(await client.post(f"{API}/search", json=body))["items"]
        expected = {"year": 2027, "tags": ["a", "b"]}
        assert [item["metadata"] for item in found] == [expected] * len(found)
        assert found
        assert await payloads(server, member) == [expected]

    async def test_of_metadata_while_it_is_ingested_is_not_lost(
        self, client: httpx2.AsyncClient, server: Running, member: Member, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slug = await new_collection(client)
        taken = await add_texts(client, slug, GARDEN)
        path = f"{API}/documents/{taken['items'][0]['document_id']}"
        publish = IngestionService._publish

        async def patched_first(self: IngestionService, *arguments: Any) -> None:
            ok(await client.patch(path, json={"metadata": {"year": 1}}))
            await publish(self, *arguments)

        monkeypatch.setattr(IngestionService, "_publish", patched_first)
        await work(server)
        assert ok(await client.get(path))["status"] == "ready"
        assert await payloads(server, member) == [{"year": 1, "tags": ["a", "b"]}]

    async def test_of_the_title_is_shown_at_once_and_embedded_by_a_job(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug, path = await self.made(client, server)
        body = {"collections": [slug], "query": "zeppelin", "mode": "keyword"}
        assert ok(await client.post(f"{API}/search", json=body))["items"] == []
        response = await client.patch(path, json={"title": "Zeppelin"})
        changed = ok(response, 202)
        assert (changed["title"], changed["status"]) == ("Zeppelin", "accepted")
        old = {"collections": [slug], "query": "garden water"}
        assert ok(await client.post(f"{API}/search", json=old))["items"]
        job = await finished(client, server, response.headers["Location"].rpartition("/")[2])
        assert (job["kind"], job["status"]) == ("ingestion", "succeeded")
        found = ok(await client.post(f"{API}/search", json=body))["items"]
        assert {item["title"] for item in found} == {"Zeppelin"}
        assert ok(await client.get(path))["status"] == "ready"

    async def test_of_the_title_keeps_one_version_and_its_bytes(
        self, client: httpx2.AsyncClient, server: Running, settings: Settings, member: Member
    ) -> None:
        _, path = await self.made(client, server)
        before = await rows(server, member)
        for title in ("One", "Two", "Three"):
            ok(await client.patch(path, json={"title": title}), 202)
        await work(server)
        assert await rows(server, member) == before
        assert len(blobs(settings, member)) == 1
        assert (await client.get(f"{path}/original")).text == str(GARDEN["text"])
        job_id = ok(await client.delete(path), 202)["job_id"]
        await finished(client, server, job_id)
        assert await rows(server, member) == dict.fromkeys(TABLES, 0)
        assert blobs(settings, member) == []

    async def test_of_the_title_then_of_the_bytes_leaves_no_old_file(
        self, client: httpx2.AsyncClient, server: Running, settings: Settings, member: Member
    ) -> None:
        slug, path = await self.made(client, server)
        ok(await client.patch(path, json={"title": "Renamed"}), 202)
        await add_texts(client, slug, GARDEN | {"external_id": GARDEN["title"], "text": "Other text."})
        await work(server)
        await server.drain().run(INGEST_QUEUE)
        assert (await rows(server, member))["files"] == len(blobs(settings, member)) == 1

    async def test_of_the_title_before_it_is_parsed_keeps_the_given_one(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        document_id = await upload(client, slug, "page.html", b"<title>Own</title><p>Some text here.</p>")
        ok(await client.patch(f"{API}/documents/{document_id}", json={"title": "Given"}), 202)
        await work(server)
        document = ok(await client.get(f"{API}/documents/{document_id}"))
        assert (document["title"], document["status"]) == ("Given", "ready")

    async def test_to_the_same_title_embeds_nothing(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        _, path = await self.made(client, server)
        assert ok(await client.patch(path, json={"title": GARDEN["title"]}))["status"] == "ready"


class TestDelete:
    async def test_takes_it_out_of_search_at_once(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        gone = await upload(client, slug, "gone.txt", b"Penguins swim in cold water.")
        kept = await upload(client, slug, "kept.txt", b"Penguins cannot fly.")
        await work(server)
        ok(await client.delete(f"{API}/documents/{gone}"), 202)
        for mode in ("hybrid", "dense", "keyword"):
            body = {"collections": [slug], "query": "penguins", "mode": mode}
            found = ok(await client.post(f"{API}/search", json=body))["items"]
            assert {item["document_id"] for item in found} == {kept}

    async def test_hides_it_everywhere_at_once(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        document_id = await upload(client, slug, "gone.txt", b"Penguins swim.")
        await work(server)
        ok(await client.delete(f"{API}/documents/{document_id}"), 202)
        for part in ("", "/text", "/original"):
            problem(await client.get(f"{API}/documents/{document_id}{part}"), 404, "not_found")
        problem(await client.delete(f"{API}/documents/{document_id}"), 404, "not_found")
        assert ok(await client.get(f"{API}/collections/{slug}/documents"))["items"] == []

    async def test_leaves_no_row_and_no_byte(
        self, client: httpx2.AsyncClient, server: Running, settings: Settings, member: Member
    ) -> None:
        document_id = await upload(client, await new_collection(client), "gone.txt", b"Penguins swim.")
        await work(server)
        before = await rows(server, member)
        assert before == dict.fromkeys(TABLES, 1)
        assert len(blobs(settings, member)) == 1
        job_id = ok(await client.delete(f"{API}/documents/{document_id}"), 202)["job_id"]
        assert (await finished(client, server, job_id))["status"] == "succeeded"
        assert await rows(server, member) == dict.fromkeys(TABLES, 0)
        assert blobs(settings, member) == []

    async def test_takes_every_version_along(
        self, client: httpx2.AsyncClient, server: Running, settings: Settings, member: Member
    ) -> None:
        slug = await new_collection(client)
        document_id = await upload(client, slug, "note.txt", b"First version.")
        await work(server)
        assert await upload(client, slug, "note.txt", b"Second version.") == document_id
        await work(server)
        job_id = ok(await client.delete(f"{API}/documents/{document_id}"), 202)["job_id"]
        await finished(client, server, job_id)
        assert await rows(server, member) == dict.fromkeys(TABLES, 0)
        assert blobs(settings, member) == []

    async def test_while_it_waits_to_be_ingested_stops_that(
        self, client: httpx2.AsyncClient, server: Running, settings: Settings, member: Member
    ) -> None:
        taken = await add_texts(client, await new_collection(client), GARDEN)
        document_id = UUID(taken["items"][0]["document_id"])
        job_id = ok(await client.delete(f"{API}/documents/{document_id}"), 202)["job_id"]
        assert (await finished(client, server, job_id))["status"] == "succeeded"
        assert ok(await client.get(f"{API}/jobs/{taken['job_id']}"))["status"] == "cancelled"
        assert await rows(server, member) == dict.fromkeys(TABLES, 0)
        assert blobs(settings, member) == []

    async def test_of_a_collection_leaves_nothing_of_its_documents(
        self, client: httpx2.AsyncClient, server: Running, settings: Settings, member: Member
    ) -> None:
        slug = await new_collection(client)
        await upload(client, slug, "a.txt", b"One text.")
        await upload(client, slug, "b.txt", b"Another text.")
        await work(server)
        await upload(client, slug, "c.txt", b"A text that waits.")
        job_id = ok(await client.delete(f"{API}/collections/{slug}"), 202)["job_id"]
        await finished(client, server, job_id)
        assert await rows(server, member) == dict.fromkeys(TABLES, 0)
        assert blobs(settings, member) == []
