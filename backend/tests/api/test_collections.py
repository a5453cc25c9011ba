"""Collections over HTTP: made, listed, counted, deleted with all that is in them."""

from __future__ import annotations

import httpx2
import pytest

from app.core.ids import new_id
from tests.api.calls import API, add_texts, finished, new_collection, ok, pointers, problem, work
from tests.factories import Factory, Member
from tests.fixtures import Running, http_client

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = {"title": "Leave", "text": "Everyone has thirty days of paid leave in a year."}


class TestCreate:
    async def test_answers_an_empty_collection_with_its_index(self, client: httpx2.AsyncClient) -> None:
        body = {"name": "Team Handbook", "description": "What we agreed on"}
        collection = ok(await client.post(f"{API}/collections", json=body), 201)
        assert (collection["slug"], collection["documents"]) == ("team-handbook", {})
        assert (collection["index"]["store"], collection["index"]["chunk_count"]) == ("pgvector", 0)

    async def test_refuses_a_slug_that_is_taken(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        response = await client.post(f"{API}/collections", json={"name": "Other", "slug": slug})
        problem(response, 409, "duplicate")

    async def test_refuses_a_bad_slug(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/collections", json={"name": "Other", "slug": "No Slug"})
        assert pointers(response) == ["/body/slug"]

    async def test_refuses_unknown_fields(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/collections", json={"name": "Other", "chunking": {}})
        assert pointers(response) == ["/body/chunking"]

    async def test_in_another_project_may_use_the_slug_again(
        self, client: httpx2.AsyncClient, server: Running, make: Factory, member: Member
    ) -> None:
        slug = await new_collection(client)
        second, everywhere = await make.project(member), await make.key(member, unbound=True)
        async with http_client(server, everywhere.key) as other:
            other.headers["X-Project-Id"] = str(second.project_id)
            ok(await other.post(f"{API}/collections", json={"name": "Other", "slug": slug}), 201)


class TestRead:
    async def test_finds_by_id_and_by_slug(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        by_slug = ok(await client.get(f"{API}/collections/{slug}"))
        assert ok(await client.get(f"{API}/collections/{by_slug['id']}")) == by_slug

    async def test_of_what_is_not_there_is_404(self, client: httpx2.AsyncClient) -> None:
        for reference in ("nowhere", str(new_id())):
            problem(await client.get(f"{API}/collections/{reference}"), 404, "not_found")

    async def test_counts_documents_by_status(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        await add_texts(client, slug, TEXT)
        assert ok(await client.get(f"{API}/collections/{slug}"))["documents"] == {"accepted": 1}
        await work(server)
        collection = ok(await client.get(f"{API}/collections/{slug}"))
        assert (collection["documents"], collection["index"]["chunk_count"]) == ({"ready": 1}, 1)

    async def test_lists_the_newest_first_in_pages(self, client: httpx2.AsyncClient) -> None:
        slugs = [await new_collection(client) for _ in range(3)]
        first = ok(await client.get(f"{API}/collections", params={"limit": 2}))
        last = ok(await client.get(f"{API}/collections", params={"cursor": first["next_cursor"]}))
        assert [row["slug"] for row in first["items"] + last["items"]] == slugs[::-1]


class TestUpdate:
    async def test_changes_name_and_description(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/collections/{await new_collection(client)}"
        changed = ok(await client.patch(path, json={"name": "Library", "description": "Books"}))
        assert (changed["name"], changed["description"], changed["revision"]) == ("Library", "Books", 2)
        assert ok(await client.get(path)) == changed

    async def test_cuts_what_comes_from_then_on_as_it_says(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        usual = ok(await client.get(f"{API}/collections/{slug}"))["settings"]["chunking"]
        long = {"text": "Every garden needs water in the summer. " * 60}
        before = await add_texts(client, slug, long | {"title": "Before"})
        await work(server)
        patch = {"settings": {"chunking": {"max_tokens": 32}}}
        changed = ok(await client.patch(f"{API}/collections/{slug}", json=patch))
        assert changed["settings"]["chunking"] == usual | {"max_tokens": 32}
        after = await add_texts(client, slug, long | {"title": "After"})
        await work(server)
        counts = [
            ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}"))["chunk_count"]
            for taken in (before, after)
        ]
        assert counts[1] > 4 * counts[0]

    async def test_of_one_leaves_the_settings_of_others(self, client: httpx2.AsyncClient) -> None:
        one, other = await new_collection(client), await new_collection(client)
        before = ok(await client.get(f"{API}/collections/{other}"))
        for tokens in (64, 128, 128):
            patch = {"settings": {"chunking": {"max_tokens": tokens}}}
            ok(await client.patch(f"{API}/collections/{one}", json=patch))
        assert ok(await client.get(f"{API}/collections/{other}")) == before
        third = ok(await client.get(f"{API}/collections/{await new_collection(client)}"))
        assert third["settings"] == before["settings"]

    @pytest.mark.parametrize(
        ("chunking", "pointer"),
        [
            ({"max_tokens": 15}, "/body/settings/chunking/max_tokens"),
            ({"max_tokens": None}, "/body/settings/chunking/max_tokens"),
            ({"max_tokens": 16}, "/body/settings/chunking"),  # the usual overlap is larger
            ({"overlap": -1}, "/body/settings/chunking/overlap"),
            ({"stride": 1}, "/body/settings/chunking/stride"),
        ],
    )
    async def test_refuses_settings_that_cannot_work(
        self, client: httpx2.AsyncClient, chunking: dict[str, int], pointer: str
    ) -> None:
        path = f"{API}/collections/{await new_collection(client)}"
        response = await client.patch(path, json={"settings": {"chunking": chunking}})
        assert pointers(response) == [pointer]


class TestDelete:
    async def test_hides_it_at_once(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        ok(await client.delete(f"{API}/collections/{slug}"), 202)
        problem(await client.get(f"{API}/collections/{slug}"), 404, "not_found")
        assert ok(await client.get(f"{API}/collections"))["items"] == []

    async def test_hides_its_documents_at_once(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        taken = await add_texts(client, slug, TEXT)
        await work(server)
        ok(await client.delete(f"{API}/collections/{slug}"), 202)
        document = taken["items"][0]["document_id"]
        problem(await client.get(f"{API}/documents/{document}"), 404, "not_found")
        body = {"collections": [slug], "query": "paid leave"}
        problem(await client.post(f"{API}/search", json=body), 404, "not_found")

    async def test_frees_the_slug_at_once(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        ok(await client.delete(f"{API}/collections/{slug}"), 202)
        ok(await client.post(f"{API}/collections", json={"name": "Next", "slug": slug}), 201)

    async def test_twice_is_404(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        ok(await client.delete(f"{API}/collections/{slug}"), 202)
        problem(await client.delete(f"{API}/collections/{slug}"), 404, "not_found")

    async def test_ends_in_a_job_that_succeeds(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        await add_texts(client, slug, TEXT, TEXT | {"title": "Sick leave"})
        await work(server)
        job_id = ok(await client.delete(f"{API}/collections/{slug}"), 202)["job_id"]
        job = await finished(client, server, job_id)
        assert (job["kind"], job["status"]) == ("erase_collection", "succeeded")
