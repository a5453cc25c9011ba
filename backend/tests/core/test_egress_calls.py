"""Calls as they are meant: what is sent, what comes back, whole and as a stream."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from app.core.egress import Call, EgressBusy, EgressDenied, EgressFailed, EgressTooLarge, Reply, ServerEvent
from tests.core.peers import NAME, QUICK, Request, names, ok, peer, says, way_out

SSE = "Content-Type: text/event-stream"


class TestFetch:
    async def test_gives_status_headers_body_and_address(self) -> None:
        async with (
            peer(says(ok(b"made", status="201 Created", headers=["X-A: b"]))) as other,
            way_out(other.authority) as egress,
        ):
            reply = await egress.fetch(Call("GET", f"{other.url}a?b=c#d"))
        expected = Reply(f"{other.url}a?b=c", 201, {"content-length": "4", "x-a": "b"}, b"made")
        assert reply == expected

    async def test_sends_method_target_headers_and_body(self) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            await egress.fetch(
                Call.with_json("PUT", f"{other.url}a%20b?c=d", {"é": 1}, headers={"X-Key": "k"})
            )
        sent = other.requests[0]
        assert (sent.method, sent.target, sent.body) == ("PUT", "/a%20b?c=d", '{"é":1}'.encode())
        assert sent.headers == {
            "host": other.authority,
            "user-agent": "Orrery",
            "accept": "*/*",
            "content-type": "application/json",
            "x-key": "k",
            "content-length": "8",
            "accept-encoding": "gzip, deflate",
        }

    @pytest.mark.parametrize("status", ["404 Not Found", "500 Broken", "304 Same"])
    async def test_gives_failures_of_the_other_side_as_answers(self, status: str) -> None:
        async with peer(says(ok(b"", status=status))) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("GET", other.url))).status == int(status[:3])

    async def test_uses_a_connection_again(self) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            for _ in range(5):
                await egress.fetch(Call("GET", other.url))
            assert (len(other.requests), other.connections) == (5, 1)

    async def test_keeps_no_cookies(self) -> None:
        async with (
            peer(says(ok(headers=["Set-Cookie: a=b; Path=/"]))) as other,
            way_out(other.authority) as egress,
        ):
            for _ in range(2):
                await egress.fetch(Call("GET", other.url))
        assert ["cookie" in request.headers for request in other.requests] == [False, False]

    @pytest.mark.parametrize(
        ("kind", "body", "text"),
        [
            ("text/plain", "é".encode(), "é"),
            ("text/plain; charset=ISO-8859-1", b"\xe9", "é"),
            ('text/plain; charset="utf-16"; x=y', "é".encode("utf-16"), "é"),
            ("text/plain; charset=zlib", b"\xff", "�"),
            ("text/plain; charset=punycode", b"a-", "a-"),
            ("text/plain; charset=cp999999", b"a", "a"),
        ],
    )
    async def test_reads_text_by_its_charset(self, kind: str, body: bytes, text: str) -> None:
        assert Reply("", 200, {"content-type": kind}, body).text == text

    async def test_of_more_than_the_connections_there_are_says_so(self) -> None:
        limits = replace(QUICK, connect_s=0.2)
        async with (
            peer(says(b"HTTP/1.1 200 OK\r\n\r\n")) as other,
            way_out(other.authority, limits=limits, max_connections=1) as egress,
            egress.stream(Call("GET", other.url)),
        ):
            with pytest.raises(EgressBusy) as busy:
                await egress.fetch(Call("GET", other.url))
        assert (busy.value.status, busy.value.code, busy.value.retry_after_s) == (503, "egress_busy", 1)

    async def test_takes_the_limits_of_the_call(self) -> None:
        async with peer(says(ok(b"x" * 11))) as other, way_out(other.authority) as egress:
            limits = replace(egress.limits, max_bytes=10)
            with pytest.raises(EgressTooLarge):
                await egress.fetch(Call("GET", other.url, limits=limits))


class TestRefusedCalls:
    @pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "GET /x", ""])
    async def test_of_another_method(self, method: str) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            with pytest.raises(EgressDenied, match="GET, HEAD, POST"):
                await egress.fetch(Call(method, other.url))
            assert other.connections == 0

    @pytest.mark.parametrize(
        "name",
        ["Host", "host", "Content-Length", "Transfer-Encoding", "Connection", "TE", "Upgrade", "Expect",
         "Accept-Encoding", "Proxy-Authorization", "a b", "a:", "", "a\r\nb", "é"],
    )  # fmt: skip
    async def test_with_a_header_that_is_not_theirs(self, name: str) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            with pytest.raises(EgressDenied):
                await egress.fetch(Call("GET", other.url, {name: "x"}))
            assert other.connections == 0

    @pytest.mark.parametrize("value", ["a\r\nHost: b", "a\nb", "a\0b", "canary\x7f", "é", "→"])
    async def test_with_a_value_that_is_none_without_showing_it(self, value: str) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            with pytest.raises(EgressDenied) as denied:
                await egress.fetch(Call("GET", other.url, {"X-Key": value}))
            assert (other.connections, value in denied.value.detail) == (0, False)

    async def test_of_an_international_name_that_cannot_be_shown(self) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            with pytest.raises((EgressDenied, EgressFailed), match=r"a_b\.xn--p1ai"):
                await egress.fetch(Call("GET", "http://a_b.xn--p1ai/"))

    async def test_are_422_and_not_worth_a_retry(self) -> None:
        async with way_out() as egress:
            with pytest.raises(EgressDenied) as denied:
                await egress.fetch(Call("GET", "http://127.0.0.1/"))
        assert (denied.value.status, denied.value.code, denied.value.retriable) == (
            422,
            "egress_denied",
            False,
        )


class TestStream:
    async def test_gives_chunks_as_they_come(self) -> None:
        more = asyncio.Event()

        async def script(_: Request, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await more.wait()
            writer.write(b"1\r\nb\r\n0\r\n\r\n")

        async with (
            peer(script) as other,
            way_out(other.authority) as egress,
            egress.stream(Call("GET", other.url)) as reply,
        ):
            chunks = reply.chunks()
            first = await anext(chunks)
            more.set()
            assert (first, [chunk async for chunk in chunks]) == (b"a", [b"b"])

    async def test_gives_lines(self) -> None:
        async with (
            peer(says(ok("é\r\nb\n\nc".encode()))) as other,
            way_out(other.authority) as egress,
            egress.stream(Call("GET", other.url)) as reply,
        ):
            assert [line async for line in reply.lines()] == ["é", "b", "", "c"]

    async def test_gives_server_sent_events(self) -> None:
        body = b": hi\n\nevent: a\ndata: 1\ndata: 2\nid: 7\n\ndata: \xc3\xa9\n\n"
        async with (
            peer(says(ok(body, headers=[SSE]))) as other,
            way_out(other.authority) as egress,
            egress.stream(Call("GET", other.url)) as reply,
        ):
            events = [event async for event in reply.events()]
        assert events == [ServerEvent("a", "1\n2", "7"), ServerEvent("message", "é", "7")]

    async def test_gives_no_events_of_another_type(self) -> None:
        async with (
            peer() as other,
            way_out(other.authority) as egress,
            egress.stream(Call("GET", other.url)) as reply,
        ):
            with pytest.raises(EgressFailed, match="events were expected"):
                [event async for event in reply.events()]

    async def test_refuses_an_event_too_large(self) -> None:
        limits = replace(QUICK, max_event_bytes=100)
        answer = ok(b"data: " + b"x" * 200 + b"\n\n", headers=[SSE])
        async with (
            peer(says(answer)) as other,
            way_out(other.authority, limits=limits) as egress,
            egress.stream(Call("GET", other.url)) as reply,
        ):
            with pytest.raises(EgressTooLarge, match="100 bytes"):
                [event async for event in reply.events()]

    async def test_left_early_closes_its_connection(self) -> None:
        async with (
            peer(says(ok(b"x" * 2**20))) as other,
            way_out(other.authority) as egress,
            egress.stream(Call("GET", other.url)) as reply,
        ):
            await anext(reply.chunks())
        await other.alone()


class TestNames:
    async def test_are_looked_up_once_and_kept_in_the_host_header(self) -> None:
        resolver = names(["127.0.0.1"])
        async with peer() as other, way_out(other.authority, resolver=resolver) as egress:
            await egress.fetch(Call("GET", f"http://{NAME.upper()}.:{other.port}/"))
        assert resolver.asked == [NAME]
        assert other.requests[0].headers["host"] == f"{NAME}:{other.port}"

    async def test_fall_back_to_their_next_address(self) -> None:
        async with peer() as other:
            allow = [f"127.0.0.{n}:{other.port}" for n in range(1, 5)]
            resolver = names(["127.0.0.4", "127.0.0.3", "127.0.0.2", "127.0.0.1"])
            async with way_out(*allow, resolver=resolver) as egress:
                reply = await egress.fetch(Call("GET", f"http://{NAME}:{other.port}/"))
        assert reply.body == b"fine"

    async def test_with_very_many_addresses_are_not_all_dialled(self) -> None:
        async with peer() as other:
            resolver = names([*(f"127.0.0.{n}" for n in range(2, 9)), "127.0.0.1"])
            async with way_out("127.0.0.0/8", resolver=resolver) as egress:
                with pytest.raises(EgressFailed, match="refused"):
                    await egress.fetch(Call("GET", f"http://{NAME}:{other.port}/"))

    async def test_of_this_machine_are_found_by_the_system(self) -> None:
        async with peer() as other, way_out("localhost", system=True) as egress:
            reply = await egress.fetch(Call("GET", f"http://localhost:{other.port}/"))
        assert reply.body == b"fine"


class TestVendorClient:
    async def test_calls_through_the_guard(self) -> None:
        async with (
            peer() as other,
            way_out(other.authority) as egress,
            await egress.vendor_client() as client,
        ):
            assert (await client.get(other.url)).content == b"fine"
            with pytest.raises(EgressDenied):
                await client.get("http://127.0.0.1:9/")

    async def test_leaves_the_way_out_open_when_closed(self) -> None:
        async with peer() as other, way_out(other.authority) as egress:
            await (await egress.vendor_client()).aclose()
            assert (await egress.fetch(Call("GET", other.url))).status == 200

    async def test_keeps_no_cookies(self) -> None:
        async with (
            peer(says(ok(headers=["Set-Cookie: a=b; Path=/"]))) as other,
            way_out(other.authority) as egress,
            await egress.vendor_client() as client,
        ):
            for _ in range(2):
                await client.get(other.url)
        assert ["cookie" in request.headers for request in other.requests] == [False, False]

    @pytest.mark.parametrize(
        "header",
        [
            ("Host", "elsewhere.example"),
            *((name, "x") for name in ("Connection", "TE", "Upgrade", "Expect", "Trailer", "Keep-Alive")),
            *((name, "x") for name in ("Accept-Encoding", "Proxy-Authorization", "a b", "a:", "")),
            ("Transfer-Encoding", "gzip, chunked"),
            *(("X-Key", value) for value in ("canary\r\nHost: b", "canary\nb", "canary\0", "canary\x7f")),
            ("X-Key", "canary-é".encode()),
        ],
        ids=str,
    )
    async def test_sends_no_header_that_is_not_theirs(self, header: tuple[str, str | bytes]) -> None:
        async with (
            peer() as other,
            way_out(other.authority) as egress,
            await egress.vendor_client() as client,
        ):
            name, value = header
            given = [(name.encode(), value if isinstance(value, bytes) else value.encode())]
            with pytest.raises(EgressDenied) as denied:
                await client.post(other.url, content=b"GET / HTTP/1.1\r\n\r\n", headers=given)
            assert (other.connections, "canary" in denied.value.detail) == (0, False)

    async def test_sends_what_the_client_says_itself_of_host_and_body(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"some"

        async with (
            peer() as other,
            way_out(other.authority) as egress,
            await egress.vendor_client() as client,
        ):
            await client.post(other.url, json={"a": 1}, headers={"X-Key": " k "})
            sent = other.requests[0]
            assert (sent.body, sent.headers["x-key"], sent.headers["host"]) == (
                b'{"a":1}',
                "k",
                other.authority,
            )
            sized = {"Content-Length": "4"}
            assert (await client.post(other.url, content=parts(), headers=sized)).status_code == 200
            await client.post(other.url, content=parts())
            assert [request.body for request in other.requests[1:]] == [b"some", b"4\r\nsome\r\n0\r\n\r\n"]

    @pytest.mark.parametrize("second", [("Content-Length", "4"), ("Transfer-Encoding", "chunked")])
    async def test_never_says_twice_how_long_a_body_is(self, second: tuple[str, str]) -> None:
        """Two servers in a row could see different requests, of which one may be another tenant's."""
        async with (
            peer() as other,
            way_out(other.authority) as egress,
            await egress.vendor_client() as client,
        ):
            with pytest.raises(EgressDenied, match="more than once how long"):
                await client.post(other.url, content=b"some", headers=[("Content-Length", "4"), second])
            assert other.connections == 0

    async def test_has_limits_of_its_own(self) -> None:
        async with (
            peer(says(ok(b"x" * 11))) as other,
            way_out(other.authority) as egress,
            await egress.vendor_client(replace(QUICK, max_bytes=10)) as client,
        ):
            with pytest.raises(EgressTooLarge):
                await client.get(other.url)


class TestStart:
    def test_loads_no_http_library(self) -> None:
        code = (
            "import sys, app.core.egress, app.core.config;"
            "sys.exit(any(name in sys.modules for name in ('httpx2', 'httpcore2', 'h11')))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
