"""The body of an answer as its reader gets it: decompressed, counted, timed, and closed whatever happens."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncGenerator, Iterator
from contextlib import AsyncExitStack

import httpcore2
import httpx2

from app.core.egress.budget import Budget
from app.core.egress.errors import EgressFailed, EgressTooLarge
from app.core.egress.failures import reported

ACCEPT_ENCODING = "gzip, deflate"
_PIECE = 256 * 2**10
_GZIP_OR_ZLIB, _GZIP, _RAW = zlib.MAX_WBITS | 32, zlib.MAX_WBITS | 16, -zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_MAX_MEMBERS = 64
"""Of one gzip body: each empty one costs time without counting as a byte."""


class Inflater:
    """`gzip` (also several members) and `deflate` (zlib, or bare as some servers send it), in small pieces.

    Raises `zlib.error` for anything else.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(_GZIP_OR_ZLIB)
        self._untouched = True
        self._members = 1
        self._held = b""

    @property
    def complete(self) -> bool:
        return self._untouched or self._stream.eof

    def feed(self, data: bytes) -> Iterator[bytes]:
        more = True
        while more:
            if self._stream.eof:
                data, self._held = self._held + data, b""
                if data == _GZIP_MAGIC[:1]:
                    self._held = data  # perhaps half of what another member begins with
                    return
                if not data.startswith(_GZIP_MAGIC):
                    return  # padding behind the last member
                self._members += 1
                if self._members > _MAX_MEMBERS:
                    raise zlib.error("too many members")
                self._stream = zlib.decompressobj(_GZIP)
            piece = self._inflate(data)
            self._untouched = False
            data = self._stream.unconsumed_tail or self._stream.unused_data
            more = bool(data) or len(piece) == _PIECE  # a full piece may leave output behind, without input
            if piece:
                yield piece

    def _inflate(self, data: bytes) -> bytes:
        try:
            return self._stream.decompress(data, _PIECE)
        except zlib.error:
            if not self._untouched:
                raise
            self._stream = zlib.decompressobj(_RAW)
            return self._stream.decompress(data, _PIECE)


def inflater(encoding: str) -> Inflater | None:
    """For a `Content-Encoding`. Raises `EgressFailed` for one we did not ask for, also for several."""
    match encoding.strip().lower():
        case "" | "identity":
            return None
        case "gzip" | "x-gzip" | "deflate":
            return Inflater()
    raise EgressFailed(f"The answer is encoded as {encoding[:100]!r}; only {ACCEPT_ENCODING} were offered.")


class BoundedBody(httpx2.AsyncByteStream):
    """Yields the decompressed body; raises as soon as a limit of `budget` is passed.

    `held` is closed with it: the answer, and what its call holds.
    """

    def __init__(
        self,
        answer: httpcore2.Response,
        *,
        held: AsyncExitStack,
        host: str,
        budget: Budget,
        inflater: Inflater | None,
    ) -> None:
        self._answer = answer
        self._held = held
        self._host = host
        self._budget = budget
        self._inflater = inflater
        self._received = _Counter(budget.limits.max_bytes, host)
        self._decoded = _Counter(budget.limits.max_bytes, host)

    async def __aiter__(self) -> AsyncGenerator[bytes]:
        parts = self._answer.aiter_stream()
        try:
            while part := await self._next(parts):
                self._received.add(part)
                for piece in self._decode(part):
                    self._decoded.add(piece)
                    yield piece
                    await asyncio.sleep(0)
            if self._inflater and not self._inflater.complete:
                raise EgressFailed(f"{self._host!r} sent a compressed body that breaks off.")
        finally:
            await parts.aclose()
            await self.aclose()

    async def _next(self, parts: AsyncGenerator[bytes]) -> bytes:
        limits = self._budget.limits
        with reported(self._host, limits):
            async with self._budget.within(limits.idle_s, f"{self._host!r} sent nothing more of its answer"):
                async for part in parts:
                    if part:
                        return part
        return b""

    def _decode(self, part: bytes) -> Iterator[bytes]:
        if self._inflater is None:
            yield part
            return
        try:
            yield from self._inflater.feed(part)
        except zlib.error as error:
            raise EgressFailed(f"{self._host!r} sent a compressed body that is damaged.") from error

    async def aclose(self) -> None:
        await self._held.aclose()


class _Counter:
    def __init__(self, most: int, host: str) -> None:
        self._most = most
        self._host = host
        self._seen = 0

    def add(self, data: bytes) -> None:
        self._seen += len(data)
        if self._seen > self._most:
            raise too_large(self._host, self._most)


def too_large(host: str, most: int) -> EgressTooLarge:
    return EgressTooLarge(f"{host!r} answered with more than {most} bytes, the most that is taken.")
