"""Requests that are odd, broken or cut off: each gets a problem that says what is wrong with it."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest
import structlog
from structlog.testing import capture_logs

from app.api import middleware
from app.core.config import Settings
from app.core.ids import new_id
from tests.api.calls import API, frames, new_agent, new_collection, ok, pointers, problem
from tests.factories import Member
from tests.fixtures import Running, http_client, running_server

pytestmark = pytest.mark.asyncio(loop_scope="session")

JSON = {"Content-Type": "application/json"}
NOBODYS = "019a0000-0000-7000-8000-000000000000"
"""An id that nothing has; parallel test processes must name their cases alike."""
BACKEND = Path(__file__).resolve().parents[2]
FULL_TEMPORARY_FOLDER = Path(__file__).with_name("full_temporary_folder.py")
MOUNT = 'mount -t tmpfs -o size=256k tmpfs "$1" && exec "$2" "$3" "$1"'


@asynccontextmanager
async def socket_to(server: Running) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    address = urlsplit(server.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        await writer.wait_closed()


def head(method: str, path: str, member: Member, **headers: str) -> bytes:
    """The head of a request, as bytes, for what no HTTP client would send."""
    lines = [f"{method} {path} HTTP/1.1", "Host: test", f"Authorization: Bearer {member.key}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


async def answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, Any]]:
    """Status and JSON of the next answer."""
    async with asyncio.timeout(30):
        raw = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        fields = {
            name.lower(): value for name, _, value in (line.partition(": ") for line in raw.split("\r\n"))
        }
        body = await reader.readexactly(int(fields["content-length"]))
    return int(raw.split()[1]), json.loads(body)


class TestBodyThatNobodyAskedFor:
    @pytest.mark.parametrize(
        ("method", "path"), [("GET", "agents"), ("POST", f"runs/{NOBODYS}/cancel"), ("DELETE", "agents/x")]
    )
    async def test_is_refused(self, client: httpx2.AsyncClient, method: str, path: str) -> None:
        response = await client.request(method, f"{API}/{path}", json={"name": "x"})
        assert pointers(response, "unexpected_body") == ["/body"]

    @pytest.mark.parametrize("body", [b"", b"{}", b" null\n"])
    async def test_may_say_nothing(self, client: httpx2.AsyncClient, body: bytes) -> None:
        ok(await client.request("GET", f"{API}/agents", content=body, headers=JSON))


class TestNamesTwice:
    @pytest.mark.parametrize(
        ("body", "pointer"),
        [
            ('{"name": "A", "name": "B"}', "/body/name"),
            ('{"name": "A", "graph": {"a": [{"x/y": 1, "x/y": 1}]}}', "/body/graph/a/0/x~1y"),
            ('{"name": {"a": 1, "a": 2}, "name": "A"}', "/body/name"),
        ],
    )
    async def test_are_refused(self, client: httpx2.AsyncClient, body: str, pointer: str) -> None:
        response = await client.post(f"{API}/agents", content=body, headers=JSON)
        errors = problem(response, 400, "malformed_json")["errors"]
        assert [error["pointer"] for error in errors] == [pointer]


class TestPointers:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ({}, ["/body/name"]),
            ({"name": ""}, ["/body/name"]),
            ({"name": "A", "nmae": 1}, ["/body/nmae"]),
            ({"name": "A", "graph": []}, ["/body/graph"]),
        ],
    )
    async def test_lead_to_the_field(
        self, client: httpx2.AsyncClient, body: dict[str, Any], expected: list[str]
    ) -> None:
        assert pointers(await client.post(f"{API}/agents", json=body)) == expected

    async def test_lead_into_lists(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/collections/{await new_collection(client)}/documents/text"
        items = [{"title": "A", "text": "A."}, {"title": "", "text": "B."}, {"title": "C"}]
        response = await client.post(path, json={"items": items})
        assert pointers(response) == ["/body/items/1/title", "/body/items/2/text"]

    async def test_name_no_members_of_unions(self, client: httpx2.AsyncClient) -> None:
        response = await client.post(f"{API}/agents/any/runs", json={"version": "newest"})
        assert set(pointers(response)) == {"/body/version"}

    @pytest.mark.parametrize(
        ("path", "headers", "pointer"),
        [
            ("agents?limit=0", {}, "/query/limit"),
            ("agents?cursor=nonsense", {}, "/query/cursor"),
            ("runs/nonsense", {}, "/path/run_id"),
            ("documents/a%00b", {}, "/path/document_id"),
            (f"runs/{NOBODYS}/events", {"Last-Event-ID": "x"}, "/header/last-event-id"),
        ],
    )
    async def test_lead_to_query_path_and_headers(
        self, client: httpx2.AsyncClient, path: str, headers: dict[str, str], pointer: str
    ) -> None:
        assert pointers(await client.get(f"{API}/{path}", headers=headers)) == [pointer]


class TestUrl:
    @pytest.mark.parametrize("path", ["/agents/%ff", "/agents/%C3%28", "/runs?agent=%ff", "/agents?%ff=1"])
    async def test_that_is_not_utf8_is_400(self, client: httpx2.AsyncClient, path: str) -> None:
        response = await client.get(f"{API}{path}")
        where = [error["pointer"] for error in problem(response, 400, "invalid_encoding")["errors"]]
        assert where == ["/query" if "?" in path else "/path"]

    async def test_may_hold_the_replacement_character_itself(self, client: httpx2.AsyncClient) -> None:
        problem(await client.get(f"{API}/agents/%EF%BF%BD"), 404, "not_found")

    async def test_that_is_too_long_is_414(self, client: httpx2.AsyncClient) -> None:
        for path in (f"/{'x' * 17_000}", f"/agents?cursor={'x' * 17_000}"):
            body = problem(await client.get(f"{API}{path}"), 414, "uri_too_long")
            assert "ORRERY_MAX_URL_BYTES" in body["detail"]

    async def test_that_no_route_has_is_named(self, client: httpx2.AsyncClient) -> None:
        body = problem(await client.get(f"{API}/agnets"), 404, "not_found")
        assert body["detail"] == f"There is no route GET {API}/agnets."


class TestHeaders:
    async def test_that_are_too_long_are_431(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents", headers={"X-Long": "x" * 66_000})
        assert "ORRERY_MAX_HEADER_BYTES" in problem(response, 431, "headers_too_large")["detail"]

    @pytest.mark.parametrize("name", ["X_Project_Id", "If_Match", "X_Request_Id", "Last_Event_ID", "Accept"])
    async def test_that_are_no_text_do_not_break_anything(
        self, server: Running, member: Member, name: str
    ) -> None:
        async with socket_to(server) as (reader, writer):
            path = f"{API}/runs/{new_id()}/events"
            writer.write(head("GET", path, member, **{name: "\xff\xfe"}))
            status, body = await answer(reader)
        assert status in (404, 422), body
        assert body["request_id"]

    async def test_of_authorization_that_are_no_text_are_401(self, server: Running) -> None:
        nobody = Member(new_id(), None, "\xff" * 40)  # type: ignore[arg-type]
        async with socket_to(server) as (reader, writer):
            writer.write(head("GET", f"{API}/agents", nobody))
            status, _ = await answer(reader)
        assert status == 401


class TestMethod:
    async def test_that_is_wrong_gets_those_of_every_route_with_this_path(
        self, client: httpx2.AsyncClient
    ) -> None:
        response = await client.put(f"{API}/agents/any", json={})
        problem(response, 405, "method_not_allowed")
        assert response.headers["Allow"] == "DELETE, GET, HEAD, PATCH"

    async def test_options_tells_the_methods(self, client: httpx2.AsyncClient) -> None:
        response = await client.request("OPTIONS", f"{API}/agents")
        assert (response.status_code, response.text) == (204, "")
        assert response.headers["Allow"] == "GET, HEAD, OPTIONS, POST"

    async def test_head_is_get_without_the_body(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/agents/{await new_agent(client)}"
        get, head_only = await client.get(path), await client.head(path)
        assert (head_only.status_code, head_only.content) == (200, b"")
        assert head_only.headers["ETag"] == get.headers["ETag"]
        assert head_only.headers["Content-Length"] == get.headers["Content-Length"]
        assert (await client.head(f"{API}/agents/nobody")).status_code == 404

    async def test_head_of_a_stream_ends_at_once(self, client: httpx2.AsyncClient) -> None:
        run = ok(
            await client.post(f"{API}/agents/{await new_agent(client)}/runs", json={"input": {"name": "Ada"}})
        )
        async with asyncio.timeout(20):
            response = await client.head(f"{API}/runs/{run['id']}/events")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")

    async def test_head_ignores_a_body(self, client: httpx2.AsyncClient) -> None:
        async with asyncio.timeout(20):
            response = await client.request("HEAD", f"{API}/agents", json={"name": "x"})
        assert response.status_code == 200


class TestAccept:
    async def test_asks_for_the_stream_where_no_mode_is_given(self, client: httpx2.AsyncClient) -> None:
        path = f"{API}/agents/{await new_agent(client)}/runs"
        body, headers = {"input": {"name": "Ada"}}, {"Accept": "text/event-stream"}
        assert frames((await client.post(path, json=body, headers=headers)).text)[-1].event == "RUN_FINISHED"
        waited = await client.post(path, json=body | {"mode": "wait"}, headers=headers)
        assert ok(waited)["status"] == "succeeded"


class TestSize:
    async def test_of_a_body_in_chunks_is_bounded(self, client: httpx2.AsyncClient) -> None:
        async def endless() -> AsyncIterator[bytes]:
            yield b'{"name": "'
            for _ in range(5):
                yield b"x" * 2**20
            yield b'"}'

        response = await client.post(f"{API}/agents", content=endless(), headers=JSON)
        detail = problem(response, 413, "too_large")["detail"]
        assert f"at most {4 * 2**20} bytes (ORRERY_MAX_REQUEST_BYTES)" in detail


class TestBrokenOff:
    @pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x"])
    async def test_requests_do_not_disturb_the_next(
        self, server: Running, member: Member, client: httpx2.AsyncClient, kind: str
    ) -> None:
        path = f"{API}/collections/{await new_collection(client)}/documents"
        path += "/text" if kind == "application/json" else ""
        part = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\nHalf of it'
        for _ in range(5):
            async with socket_to(server) as (_, writer):
                writer.write(head("POST", path, member, Content_Type=kind, Content_Length="100000") + part)
                await writer.drain()
        assert ok(await client.get(f"{API}/jobs"))["items"] == []

    async def test_a_body_that_does_not_come_is_408(
        self, settings: Settings, member: Member, client: httpx2.AsyncClient
    ) -> None:
        hasty = settings.model_copy(update={"body_silence_s": 0.2})
        path = f"{API}/collections/{await new_collection(client)}/documents"
        async with running_server(hasty) as server:
            for kind in ("application/json", "multipart/form-data; boundary=x"):
                target = f"{API}/agents" if kind == "application/json" else path
                async with socket_to(server) as (reader, writer):
                    sent = head("POST", target, member, Content_Type=kind, Content_Length="100000")
                    writer.write(sent + b"--x\r\n")
                    status, body = await answer(reader)
                assert (status, body["code"]) == (408, "request_timeout")

    async def test_a_body_that_only_trickles_is_408(self, settings: Settings, member: Member) -> None:
        hasty = settings.model_copy(update={"body_silence_s": 0.3, "body_min_bytes_per_s": 1000})
        async with running_server(hasty) as server, socket_to(server) as (reader, writer):
            writer.write(
                head(
                    "POST", f"{API}/agents", member, Content_Type="application/json", Content_Length="100000"
                )
            )
            answered = asyncio.create_task(answer(reader))
            while not answered.done():
                writer.write(b" ")
                await asyncio.sleep(0.05)
            status, body = await answered
        assert (status, body["code"]) == (408, "request_timeout")
        assert "ORRERY_BODY_MIN_BYTES_PER_S" in body["detail"]

    @pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a mount of its own")
    async def test_an_upload_on_a_full_disk_is_507(self, tmp_path: Path) -> None:
        (tmp_path / "small").mkdir()
        done = subprocess.run(
            [
                "unshare",
                "-rm",
                "sh",
                "-c",
                MOUNT,
                "-",
                tmp_path / "small",
                sys.executable,
                FULL_TEMPORARY_FOLDER,
            ],
            cwd=BACKEND,
            env={"PYTHONPATH": str(BACKEND)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode and ("unshare" in done.stderr or "mount" in done.stderr):
            pytest.skip("this machine lets nobody mount a small disk")
        assert (done.stdout.split(), done.stderr) == (["507", "storage_full"], "")


class TestCors:
    ORIGIN = "https://app.example.test"

    @asynccontextmanager
    async def opened(
        self, settings: Settings, member: Member, *origins: str
    ) -> AsyncIterator[httpx2.AsyncClient]:
        changed = settings.model_copy(update={"cors_origins": list(origins)})
        async with running_server(changed) as server, http_client(server, member.key) as client:
            client.headers["Origin"] = self.ORIGIN
            yield client

    async def test_is_closed_by_default(self, client: httpx2.AsyncClient) -> None:
        response = await client.get(f"{API}/agents", headers={"Origin": self.ORIGIN})
        assert not any(name.startswith("access-control") for name in response.headers)

    async def test_opens_named_origins_and_shows_them_our_headers(
        self, settings: Settings, member: Member
    ) -> None:
        async with self.opened(settings, member, self.ORIGIN) as client:
            headers = (await client.get(f"{API}/agents")).headers
            assert headers["Access-Control-Allow-Origin"] == self.ORIGIN
            shown = headers["Access-Control-Expose-Headers"].split(", ")
            assert {"ETag", "Location", "Retry-After", "X-Request-Id", "RateLimit-Remaining"} <= set(shown)
            other = await client.get(f"{API}/agents", headers={"Origin": "https://evil.example.test"})
            assert "Access-Control-Allow-Origin" not in other.headers

    async def test_never_lets_any_origin_send_credentials(self, settings: Settings, member: Member) -> None:
        async with self.opened(settings, member, "*") as client:
            headers = (await client.get(f"{API}/agents", headers={"Cookie": "session=x"})).headers
            assert "Access-Control-Allow-Credentials" not in headers


class TestAccessLog:
    async def test_says_the_code_of_a_problem(
        self, client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(
            middleware, "logger", structlog.get_logger()
        )  # the usual one may be bound already
        with capture_logs() as logs:
            await client.get(f"{API}/agents/{new_id()}")
            await client.get(f"{API}/agents")
        lines = [line for line in logs if line["event"] == "request"]
        assert [(line["status"], line.get("code")) for line in lines] == [(404, "not_found"), (200, None)]
