"""Peers that misbehave: every call ends in an error of ours, within its limits, and leaves nothing."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from app.core.egress import Call, EgressFailed, EgressTimeout, EgressTooLarge, Limits
from app.core.egress.bodies import Inflater
from app.core.errors import AppError
from tests.core.peers import (
    QUICK,
    Script,
    hangs_up_after,
    nobody_listening,
    ok,
    peer,
    repeats,
    says,
    way_out,
)

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
ZEROS = b"\0" * 8 * 2**20


def encoded(name: str, body: bytes) -> Script:
    return says(ok(body, headers=[f"Content-Encoding: {name}"]))


def bomb(times: int) -> bytes:
    packed = zlib.compressobj(9, wbits=31)
    return b"".join(packed.compress(ZEROS) for _ in range(times)) + packed.flush()


@dataclass(frozen=True, slots=True)
class Case:
    """A way to misbehave, what the caller gets, and limits that make it quick."""

    name: str
    script: Script
    error: type[AppError]
    says: str
    limits: Limits = QUICK


FIRST = replace(QUICK, first_byte_s=0.2)
TOTAL = replace(QUICK, total_s=0.2)
IDLE = replace(QUICK, idle_s=0.2)

CASES = [
    Case("never answers", says(), EgressTimeout, "did not answer within 0.2 s", FIRST),
    Case("headers that never end", repeats(HEAD, b"A: b\r\n", every_s=0.02), EgressTimeout, "answer", FIRST),
    Case("headers without end, fast", repeats(HEAD, b"A: b\r\n" * 999), EgressFailed, "valid HTTP"),
    Case("a giant header", says(HEAD + b"A: " + b"b" * 2**20), EgressFailed, "valid HTTP"),
    Case("interim answers for ever", repeats(b"", b"HTTP/1.1 103 E\r\n\r\n"), EgressTimeout, "answer", FIRST),
    Case("hangs up at once", hangs_up_after(), EgressFailed, "valid HTTP"),
    Case("another protocol", hangs_up_after(b"SSH-2.0-OpenSSH_9.7\r\n"), EgressFailed, "valid HTTP"),
    Case(
        "switches protocols",
        says(b"HTTP/1.1 101 S\r\nUpgrade: raw\r\nConnection: Upgrade\r\n\r\n"),
        EgressFailed,
        "HTTP",
    ),
    Case("drips", repeats(CHUNKED, b"1\r\nx\r\n", every_s=0.02), EgressTimeout, "0.2 s were over", TOTAL),
    Case("falls silent", says(CHUNKED + b"1\r\nx\r\n"), EgressTimeout, "within 0.2 s", IDLE),
    Case("a body without end", repeats(CHUNKED, b"ff\r\n" + b"x" * 255 + b"\r\n"), EgressTooLarge, "1048576"),
    Case("a body of unknown length", repeats(HEAD + b"\r\n", b"x" * 65535), EgressTooLarge, "1048576"),
    Case(
        "a length too large", says(HEAD + b"Content-Length: 99999999999\r\n\r\n"), EgressTooLarge, "1048576"
    ),
    Case("a body too short", hangs_up_after(HEAD + b"Content-Length: 9\r\n\r\nx"), EgressFailed, "broke off"),
    Case("closes amid chunks", hangs_up_after(CHUNKED + b"ff\r\nx"), EgressFailed, "broke off"),
    Case("garbage for a chunk", says(CHUNKED + b"zz\r\nx\r\n"), EgressFailed, "valid HTTP"),
    Case("a negative length", says(HEAD + b"Content-Length: -1\r\n\r\n"), EgressFailed, "valid HTTP"),
    Case("a gzip bomb", encoded("gzip", bomb(4)), EgressTooLarge, "1048576"),
    Case("a deflate bomb", encoded("deflate", zlib.compress(ZEROS)), EgressTooLarge, "1048576"),
    Case("gzip in gzip", encoded("gzip, gzip", gzip.compress(bomb(1))), EgressFailed, "encoded"),
    Case("brotli", encoded("br", b"\x8b"), EgressFailed, "encoded as 'br'"),
    Case("zstandard", encoded("zstd", b"\x28\xb5\x2f\xfd"), EgressFailed, "encoded as 'zstd'"),
    Case("damaged gzip", encoded("gzip", b"\x1f\x8b" + b"x" * 99), EgressFailed, "damaged"),
    Case("gzip that breaks off", encoded("gzip", gzip.compress(b"x" * 99)[:-9]), EgressFailed, "breaks off"),
    Case("empty gzip members", repeats(HEAD + b"Content-Encoding: gzip\r\n\r\n", gzip.compress(b"")),
         EgressFailed, "damaged"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
class TestMisbehaviour:
    async def test_is_an_error_that_says_so(self, case: Case) -> None:
        async with peer(case.script) as other, way_out(other.authority, limits=case.limits) as egress:
            with pytest.raises(case.error, match=case.says):
                await egress.fetch(Call("GET", other.url))

    async def test_leaves_no_connection(self, case: Case) -> None:
        async with peer(case.script) as other:
            async with way_out(other.authority, limits=case.limits) as egress:
                with pytest.raises(case.error):
                    await egress.fetch(Call("GET", other.url))
            await other.alone()

    async def test_keeps_no_place_among_the_connections(self, case: Case) -> None:
        async with (
            peer(case.script) as other,
            way_out(other.authority, limits=case.limits, max_connections=1, share=1) as egress,
        ):
            with pytest.raises(case.error):
                await egress.fetch(Call("GET", other.url))
            other.script = says(ok(b"again"))
            assert (await egress.fetch(Call("GET", other.url))).body == b"again"


class TestPlace:
    @pytest.mark.parametrize(("host", "shown"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
    async def test_is_named_with_its_port(self, host: str, shown: str) -> None:
        with nobody_listening(host) as port:
            async with way_out(host) as egress:
                with pytest.raises(EgressFailed) as failed:
                    await egress.fetch(Call("GET", f"http://{shown}:{port}/path?q"))
        assert failed.value.detail.startswith(f"No connection to '{shown}:{port}' could be made")


class TestSecrecy:
    async def test_an_error_quotes_nothing_of_what_was_sent(self) -> None:
        async with (
            peer(hangs_up_after(b"220 canary-banner ESMTP\r\n")) as other,
            way_out(other.authority) as egress,
        ):
            with pytest.raises(EgressFailed) as failed:
                await egress.fetch(Call("GET", other.url))
            assert "canary" not in failed.value.detail


class TestSurplus:
    async def test_is_never_taken_for_the_next_answer(self) -> None:
        forged = ok(b"real") + ok(b"forged")
        async with peer(says(forged)) as other, way_out(other.authority) as egress:
            first = await egress.fetch(Call("GET", other.url))
            other.script = says(ok(b"second"))
            second = await egress.fetch(Call("GET", other.url))
            assert (first.body, second.body, other.connections) == (b"real", b"second", 2)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "deflate": zlib.compress,
    "identity": bytes,
}


class TestCompression:
    @pytest.mark.parametrize("name", PACK)
    @pytest.mark.parametrize("body", [b"", b"text", b"\0" * 2**20, bytes(range(256)) * 3000])
    async def test_is_undone(self, name: str, body: bytes) -> None:
        async with peer(encoded(name, PACK[name](body))) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("GET", other.url))).body == body

    @pytest.mark.parametrize("size", [1, 2**18, 2**18 + 9, 2**18 + 58, 2**19])
    async def test_of_bare_deflate_is_undone(self, size: int) -> None:
        packed = zlib.compressobj(9, wbits=-15)
        body = packed.compress(b"\0" * size) + packed.flush()
        async with peer(encoded("deflate", body)) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("GET", other.url))).body == b"\0" * size

    async def test_in_several_members_with_padding_is_undone(self) -> None:
        body = gzip.compress(b"one ") + gzip.compress(b"two") + b"\0" * 9
        async with peer(encoded("gzip", body)) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("GET", other.url))).body == b"one two"

    def test_in_members_that_arrive_in_halves_is_undone(self) -> None:
        body = gzip.compress(b"one ") + gzip.compress(b"two")
        for cut in range(1, len(body)):
            inflater = Inflater()
            pieces = [piece for part in (body[:cut], body[cut:]) for piece in inflater.feed(part)]
            assert (b"".join(pieces), inflater.complete) == (b"one two", True)

    async def test_is_not_told_to_the_caller(self) -> None:
        async with (
            peer(encoded("gzip", gzip.compress(b"text"))) as other,
            way_out(other.authority) as egress,
        ):
            headers: Any = (await egress.fetch(Call("GET", other.url))).headers
            assert {"content-encoding", "content-length"} & set(headers) == set()

    async def test_of_no_body_at_all_is_no_error(self) -> None:
        head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: 99999999999\r\n\r\n"
        async with peer(says(head)) as other, way_out(other.authority) as egress:
            assert (await egress.fetch(Call("HEAD", other.url))).body == b""
