"""Documents taken in over HTTP: several at once, each with its own verdict."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio

from app.core.config import Settings
from tests.api.calls import API, add_texts, new_collection, ok, pointers, problem, work
from tests.factories import Member
from tests.fixtures import Running, http_client, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

Files = list[tuple[str, tuple[str, bytes]]]
SMALL = 2048


def files(**contents: bytes) -> Files:
    return [("files", (f"{name}.txt", content)) for name, content in contents.items()]


async def upload(
    client: httpx2.AsyncClient, collection: str, content: Files, **fields: str
) -> httpx2.Response:
    return await client.post(f"{API}/collections/{collection}/documents", files=content, data=fields)


@pytest_asyncio.fixture(loop_scope="session")
async def strict(settings: Settings, member: Member) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server that takes two small files at once."""
    limits = {"max_upload_bytes": SMALL, "max_upload_files": 2, "max_upload_request_bytes": 4 * SMALL}
    async with (
        running_server(settings.model_copy(update=limits)) as server,
        http_client(server, member.key) as opened,
    ):
        yield opened


class TestUpload:
    async def test_takes_several_files_in_one_job(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        taken = ok(await upload(client, slug, files(a=b"First text.", b=b"Second text.")), 202)
        assert [(item["name"], item["status"]) for item in taken["items"]] == [
            ("a.txt", "accepted"),
            ("b.txt", "accepted"),
        ]
        await work(server)
        assert ok(await client.get(f"{API}/jobs/{taken['job_id']}"))["status"] == "succeeded"
        assert ok(await client.get(f"{API}/collections/{slug}"))["documents"] == {"ready": 2}

    async def test_describes_files_by_the_items_field(self, client: httpx2.AsyncClient) -> None:
        about = {"a.txt": {"external_id": "doc-7", "title": "Seven", "metadata": {"year": 2026}}}
        response = await upload(
            client, await new_collection(client), files(a=b"One.", b=b"Two."), items=json.dumps(about)
        )
        first, second = ok(response, 202)["items"]
        assert (first["external_id"], first["title"], second["external_id"]) == ("doc-7", "Seven", "b.txt")
        document = ok(await client.get(f"{API}/documents/{first['document_id']}"))
        assert (document["external_id"], document["metadata"]) == ("doc-7", {"year": 2026})

    async def test_of_the_same_content_again_is_unchanged(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        (first,) = ok(await upload(client, slug, files(a=b"A text.")), 202)["items"]
        await work(server)
        (second,) = ok(await upload(client, slug, files(a=b"A text.")), 202)["items"]
        assert (second["status"], second["document_id"]) == ("unchanged", first["document_id"])

    async def test_of_new_content_replaces_the_old_when_it_is_ready(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        slug = await new_collection(client)
        (first,) = ok(await upload(client, slug, files(a=b"Apples are red.")), 202)["items"]
        await work(server)
        (second,) = ok(await upload(client, slug, files(a=b"Pears are green.")), 202)["items"]
        assert (second["status"], second["document_id"]) == ("accepted", first["document_id"])
        read = ok(await client.get(f"{API}/documents/{first['document_id']}/text"))
        assert read["text"].strip() == "Apples are red."
        await work(server)
        read = ok(await client.get(f"{API}/documents/{first['document_id']}/text"))
        assert read["text"].strip() == "Pears are green."

    async def test_of_what_failed_tries_again(self, client: httpx2.AsyncClient, server: Running) -> None:
        slug = await new_collection(client)
        bad = [("files", ("bad.pdf", b"%PDF-1.7 no more"))]
        ok(await upload(client, slug, bad), 202)
        await work(server)
        assert ok(await upload(client, slug, bad), 202)["items"][0]["status"] == "accepted"

    async def test_rejects_an_empty_file_and_takes_the_rest(self, client: httpx2.AsyncClient) -> None:
        response = await upload(client, await new_collection(client), files(a=b"", b=b"A text."))
        empty, other = ok(response, 202)["items"]
        assert (empty["status"], empty["error"]["code"], empty["document_id"]) == ("rejected", "empty", None)
        assert other["status"] == "accepted"

    async def test_rejects_the_second_of_two_with_one_name(self, client: httpx2.AsyncClient) -> None:
        twice = files(a=b"One.") + files(a=b"Two.")
        first, second = ok(await upload(client, await new_collection(client), twice), 202)["items"]
        assert (first["status"], second["status"]) == ("accepted", "rejected")
        assert second["error"]["code"] == "duplicate"

    async def test_leaves_no_bytes_of_what_it_did_not_take(
        self, client: httpx2.AsyncClient, settings: Settings, member: Member, server: Running
    ) -> None:
        slug = await new_collection(client)
        ok(await upload(client, slug, files(a=b"A text.")), 202)
        ok(await upload(client, slug, files(a=b"A text.", empty=b"") + files(a=b"Again.")), 202)
        folder = Path(settings.blob_url or "") / str(member.tenant.org_id)
        assert len([path for path in folder.rglob("*") if path.is_file()]) == 1

    @pytest.mark.parametrize("name", ["../../etc/passwd", "..\\..\\passwd", "/etc/passwd", "C:\\x\\passwd"])
    async def test_shows_the_last_part_of_a_path(self, client: httpx2.AsyncClient, name: str) -> None:
        response = await upload(client, await new_collection(client), [("files", (name, b"root"))])
        assert ok(response, 202)["items"][0]["name"] == "passwd"

    async def test_leaves_out_what_no_row_can_hold(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/collections/{await new_collection(client)}/documents"
        form = (
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="a\x00b.txt"\r\n'
            b"Content-Type: text/\x00plain\r\n\r\nA text.\r\n--x--\r\n"
        )
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        taken = ok(await client.post(path, content=form, headers=headers), 202)
        assert [(item["name"], item["status"]) for item in taken["items"]] == [("ab.txt", "accepted")]

    async def test_into_an_unknown_collection_is_404(self, client: httpx2.AsyncClient) -> None:
        problem(await upload(client, "nowhere", files(a=b"A text.")), 404, "not_found")


class TestBadForm:
    async def test_an_unknown_field_is_named(self, client: httpx2.AsyncClient) -> None:
        response = await upload(client, await new_collection(client), files(a=b"A text."), metadata="{}")
        assert pointers(response) == ["/body/metadata"]
        assert response.json()["detail"].endswith("unknown field 'metadata'; valid: 'files', 'items'")

    async def test_an_unknown_field_of_an_item_is_named(self, client: httpx2.AsyncClient) -> None:
        items = json.dumps({"a": {"colour": "red"}})
        response = await upload(client, await new_collection(client), files(a=b"A text."), items=items)
        assert pointers(response) == ["/body/items/a/colour"]
        assert "valid: 'external_id', 'title', 'metadata'" in response.json()["detail"]

    async def test_a_missing_file_is_named(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        for form in ({"files": "not a file"}, {"items": "{}"}):
            parts = [(name, (None, value)) for name, value in form.items()]
            response = await client.post(f"{API}/collections/{slug}/documents", files=parts)
            assert pointers(response) == ["/body/files"]

    async def test_a_body_that_is_no_form_is_refused(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/collections/{await new_collection(client)}/documents", json={})
        assert "'multipart/form-data'" in problem(response, 415, "unsupported_media_type")["detail"]

    async def test_a_form_that_breaks_off_is_refused(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/collections/{await new_collection(client)}/documents"
        for kind in ("multipart/form-data", "multipart/form-data; boundary=x"):
            response = await client.post(path, content=b"garbage", headers={"Content-Type": kind})
            assert response.status_code == 422, response.text

    @pytest.mark.parametrize(
        ("items", "pointer"),
        [
            ("{", "/body/items"),
            ("[]", "/body/items"),
            ("null", "/body/items"),
            ("[" * 100_000, "/body/items"),
            ('{"a.txt": 1}', "/body/items/a.txt"),
            ('{"a.txt": {"titel": "T"}}', "/body/items/a.txt/titel"),
            ('{"a.txt": {"metadata": []}}', "/body/items/a.txt/metadata"),
            ('{"a.txt": {"metadata": {"x": NaN}}}', "/body/items/a.txt/metadata/x"),
            ('{"a.txt": {"title": "\\u0000"}}', "/body/items/a.txt/title"),
            ('{"b/c.txt": {}}', "/body/items/b~1c.txt"),
        ],
    )
    async def test_bad_items_are_pointed_at(
        self, client: httpx2.AsyncClient, items: str, pointer: str
    ) -> None:
        response = await upload(client, await new_collection(client), files(a=b"A text."), items=items)
        assert pointers(response) == [pointer]


class TestLimits:
    async def test_a_file_over_the_limit_is_rejected_alone(self, strict: httpx2.AsyncClient) -> None:
        response = await upload(
            strict, await new_collection(strict), files(a=b"x" * (SMALL + 1), b=b"A text.")
        )
        large, other = ok(response, 202)["items"]
        assert (large["status"], large["error"]["code"]) == ("rejected", "too_large")
        assert str(SMALL) in large["error"]["message"]
        assert other["status"] == "accepted"

    async def test_a_file_at_the_limit_is_taken(self, strict: httpx2.AsyncClient) -> None:
        response = await upload(strict, await new_collection(strict), files(a=b"x" * SMALL))
        assert ok(response, 202)["items"][0]["status"] == "accepted"

    async def test_too_many_files_are_refused(self, strict: httpx2.AsyncClient) -> None:
        response = await upload(strict, await new_collection(strict), files(a=b"1", b=b"2", c=b"3"))
        assert "at most 2 files" in problem(response, 422, "invalid")["detail"]

    async def test_a_request_over_the_limit_is_413(self, strict: httpx2.AsyncClient) -> None:
        response = await upload(strict, await new_collection(strict), files(a=b"x" * 4 * SMALL))
        assert "(ORRERY_MAX_UPLOAD_REQUEST_BYTES)" in problem(response, 413, "too_large")["detail"]

    async def test_a_request_that_turns_out_too_large_is_413(self, strict: httpx2.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
            for _ in range(5):
                yield b"x" * SMALL

        path = f"{API}/collections/{await new_collection(strict)}/documents"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await strict.post(path, content=endless(), headers=headers)
        assert "(ORRERY_MAX_UPLOAD_REQUEST_BYTES)" in problem(response, 413, "too_large")["detail"]


class TestCutOff:
    """A client or proxy that gives up amid a form must not believe that everything arrived."""

    @pytest.mark.parametrize(
        "rest",
        [
            b"",
            b"--x",
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="b.txt"\r\n',
            b'--x\r\nContent-Disposition: form-data; name="files"; filename="b.txt"\r\n\r\nhalf',
        ],
    )
    async def test_is_refused_as_a_whole(self, client: httpx2.AsyncClient, rest: bytes) -> None:
        whole = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nall\r\n'
        path = f"{API}/collections/{await new_collection(client)}/documents"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        response = await client.post(path, content=whole + rest, headers=headers)
        assert "cut off" in problem(response, 422, "invalid")["detail"]
        ok(await client.post(path, content=whole + b"--x--", headers=headers), 202)
        assert [item["name"] for item in ok(await client.get(path))["items"]] == ["a.txt"]


class TestTexts:
    async def test_come_back_with_the_same_shape(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        item = {"external_id": "t-1", "title": "Note", "text": "A text.", "metadata": {"a": 1}}
        taken = await add_texts(client, slug, item, {"title": "Other", "text": "More."})
        assert [(i["external_id"], i["title"], i["status"]) for i in taken["items"]] == [
            ("t-1", "Note", "accepted"),
            ("Other", "Other", "accepted"),
        ]

    async def test_are_taken_as_text_whatever_they_look_like(
        self, client: httpx2.AsyncClient, server: Running
    ) -> None:
        looks = "<html><body><h1>Not HTML</h1></body></html>"
        taken = await add_texts(client, await new_collection(client), {"title": "Page", "text": looks})
        await work(server)
        read = ok(await client.get(f"{API}/documents/{taken['items'][0]['document_id']}/text"))
        assert read["text"].strip() == looks

    async def test_again_are_unchanged(self, client: httpx2.AsyncClient) -> None:
        slug = await new_collection(client)
        item = {"external_id": "t-1", "title": "Note", "text": "A text."}
        await add_texts(client, slug, item)
        assert (await add_texts(client, slug, item))["items"][0]["status"] == "unchanged"

    async def test_twice_in_one_request_are_rejected(self, client: httpx2.AsyncClient) -> None:
        item = {"external_id": "t-1", "title": "Note", "text": "A text."}
        taken = await add_texts(client, await new_collection(client), item, item | {"text": "Other."})
        assert [one["status"] for one in taken["items"]] == ["accepted", "rejected"]

    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ({"items": []}, "/body/items"),
            ({"items": [{"title": "T"}]}, "/body/items/0/text"),
            ({"items": [{"title": "T", "text": ""}]}, "/body/items/0/text"),
            ({"items": [{"title": "T", "text": "ok", "url": "x"}]}, "/body/items/0/url"),
            ({"items": [{"title": "T", "text": "a\x00b"}]}, "/body/items/0/text"),
            ({}, "/body/items"),
        ],
    )
    async def test_of_the_wrong_shape_are_pointed_at(
        self, client: httpx2.AsyncClient, body: object, pointer: str
    ) -> None:
        path = f"{API}/collections/{await new_collection(client)}/documents/text"
        assert pointers(await client.post(path, json=body)) == [pointer]
