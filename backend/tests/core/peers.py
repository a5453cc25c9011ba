"""The other side of outgoing calls: servers on loopback that do as they are told, and names that flip."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

from app.core.addresses import Address
from app.core.egress import Limits, OrganizationEgress, Ports, Resolver, Rule, Rules, open_egress
from app.core.ids import new_id

NAME = "public.example"


@dataclass(frozen=True, slots=True)
class Request:
    """What arrived, with header names in lower case; a body in chunks as it was sent."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Script = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def ok(body: bytes = b"fine", *, status: str = "200 OK", headers: Sequence[str] = ()) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def says(*parts: bytes) -> Script:
    """Sends `parts`, and keeps the connection open."""

    async def script(_: Request, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()

    return script


def hangs_up_after(*parts: bytes) -> Script:
    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        await says(*parts)(request, writer)
        writer.close()

    return script


def repeats(start: bytes, piece: bytes, *, every_s: float = 0) -> Script:
    """Sends `start`, then `piece` for ever."""

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while not writer.is_closing():
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(every_s)

    return script


def in_turn(*scripts: Script) -> Script:
    """One script for each request; the last one stays."""
    left = list(scripts)

    async def script(request: Request, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(request, writer)

    return script


def redirects(status: int, location: str) -> Script:
    return says(ok(b"", status=f"{status} Elsewhere", headers=[f"Location: {location}"]))


@contextmanager
def nobody_listening(host: str = "127.0.0.1") -> Iterator[int]:
    """A port that refuses connections: it is taken, so nobody else can begin to listen there."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as taken:
        taken.bind((host, 0))
        yield taken.getsockname()[1]


@dataclass(slots=True)
class Peer:
    """A listener: what it has seen, and whether its callers are gone."""

    script: Script
    host: str = "127.0.0.1"
    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    streams: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = field(default_factory=list)
    serving: set[asyncio.Task[None]] = field(default_factory=set)
    sni: list[str | None] = field(default_factory=list)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}/"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.streams.append((reader, writer))
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            while request := await _read(reader):
                self.requests.append(request)
                await self.script(request, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def alone(self) -> None:
        """Returns once every caller has closed its connection."""
        async with asyncio.timeout(10):
            while not all(reader.at_eof() or reader.exception() for reader, _ in self.streams):
                await asyncio.sleep(0.005)


async def _read(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n") if not reader.at_eof() else b""
    if not head:
        return None
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ", 2)
    if "transfer-encoding" in headers:
        return Request(method, target, headers, await reader.readuntil(b"0\r\n\r\n"))
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(method, target, headers, body)


@asynccontextmanager
async def peer(
    script: Script | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Peer]:
    """Listens at `host`, at a free port unless one is given."""
    made = Peer(script or says(ok()), host)
    if tls:
        tls.sni_callback = lambda _, name, __: made.sni.append(name)
    server = await asyncio.start_server(made.serve, host, port, ssl=tls, limit=2**24)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for _, writer in made.streams:
            writer.transport.abort()
        await asyncio.gather(*made.serving)


class Names:
    """A resolver: each name has answers in turn, of which the last stays. An answer may be an error."""

    def __init__(self, **names: Sequence[Sequence[str] | OSError | None]) -> None:
        self.answers = {name.replace("_", "."): list(answers) for name, answers in names.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[Address]:
        """None as an answer means that none ever comes."""
        self.asked.append(host)
        answers = self.answers.get(host, [()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if answer is None:
            await asyncio.Event().wait()
            raise AssertionError
        if isinstance(answer, OSError):
            raise answer
        return [ip_address(text) for text in answer]


def names(*answers: Sequence[str] | OSError | None) -> Names:
    """Where `NAME` is, call by call."""
    return Names(**{NAME.replace(".", "_"): answers})


_TRUST_NOBODY = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
QUICK = Limits(connect_s=5, first_byte_s=5, idle_s=5, total_s=10, max_bytes=2**20)


@asynccontextmanager
async def way_out(
    *allow: str,
    deny: Sequence[str] = (),
    ports: Sequence[str] = ("1-65535",),
    resolver: Resolver | None = None,
    system: bool = False,
    limits: Limits = QUICK,
    trust: ssl.SSLContext = _TRUST_NOBODY,
    max_connections: int = 10,
    share: int = 10,
) -> AsyncIterator[OrganizationEgress]:
    """An organization's, with names of `resolver`, or the system's; nothing internal is open but `allow`.

    Other organizations are its `gate`'s.
    """
    rules = Rules(tuple(map(Rule.parse, allow)), tuple(map(Rule.parse, deny)), tuple(map(Ports.parse, ports)))
    async with open_egress(
        rules=rules,
        limits=limits,
        resolver=None if system else resolver or names(["127.0.0.1"]),
        trust=lambda: trust,
        max_connections=max_connections,
        max_connections_per_organization=share,
    ) as gate:
        yield gate.of(new_id())
