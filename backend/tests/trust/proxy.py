"""A TCP proxy that goes wrong when told to: cuts, swallows, ends one direction, adds latency."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field

_CHUNK = 2**16


@dataclass(slots=True)
class Proxy:
    """Passes everything through to `host:port`, except as told.

    `mute`: what the far side answers is thrown away. `latency_s` is waited before each chunk of an answer.
    """

    host: str
    far_port: int
    port: int = 0
    mute: bool = False
    latency_s: float = 0
    refusing: bool = False
    open: set[asyncio.StreamWriter] = field(default_factory=set)
    near: set[asyncio.StreamWriter] = field(default_factory=set)
    stranded: set[asyncio.StreamWriter] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(self) -> None:
        """Drops every connection and takes no new one until `restore`."""
        self.refusing = True
        self.drop()

    def drop(self) -> None:
        """Drops every connection; new ones are welcome."""
        for writer in list(self.open):
            writer.transport.abort()

    def strand(self) -> None:
        """Swallows whatever either side of every connection says from now on; new ones are welcome."""
        self.stranded |= self.open

    def half_close(self) -> None:
        """Ends what comes to the near side of every connection, which may still write."""
        for writer in list(self.near):
            with suppress(OSError, RuntimeError):
                writer.write_eof()

    def restore(self) -> None:
        self.refusing = self.mute = False
        self.latency_s = 0

    async def serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.tasks.add(task)
        try:
            with suppress(OSError):
                await self._pass(reader, writer)
        finally:
            self.tasks.discard(task)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            return
        far_reader, far_writer = await asyncio.open_connection(self.host, self.far_port)
        if self.refusing:  # it was cut while this connection was made
            far_writer.transport.abort()
            return
        self.open |= {writer, far_writer}
        self.near.add(writer)
        answers = asyncio.create_task(self._copy(far_reader, writer, answering=True))
        try:
            await self._copy(reader, far_writer, answering=False)
        finally:
            self.open -= {writer, far_writer}
            self.stranded -= {writer, far_writer}
            self.near.discard(writer)
            far_writer.transport.abort()
            answers.cancel()
            await asyncio.gather(answers, return_exceptions=True)

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answering: bool
    ) -> None:
        with suppress(OSError, RuntimeError):  # RuntimeError: written to after its end
            while chunk := await reader.read(_CHUNK):
                if answering and self.latency_s:
                    await asyncio.sleep(self.latency_s)
                if not self._swallows(writer, answering=answering):
                    writer.write(chunk)
                    await writer.drain()
            if not self._swallows(writer, answering=answering):
                writer.write_eof()

    def _swallows(self, writer: asyncio.StreamWriter, *, answering: bool) -> bool:
        return writer in self.stranded or (answering and self.mute)


@asynccontextmanager
async def open_proxy(host: str, port: int) -> AsyncIterator[Proxy]:
    """A proxy on a free port of 127.0.0.1, closed with all its connections afterwards."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.serve_one, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        proxy.cut()
        server.close()
        for task in list(proxy.tasks):
            task.cancel()
        await asyncio.gather(*proxy.tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Outside:
    """A proxy on a loop of its own thread, for tests that have none."""

    proxy: Proxy
    loop: asyncio.AbstractEventLoop

    @property
    def port(self) -> int:
        return self.proxy.port

    def tell(self, what: Callable[[Proxy], None]) -> None:
        """`outside.tell(Proxy.cut)`"""

        async def told() -> None:
            what(self.proxy)

        asyncio.run_coroutine_threadsafe(told(), self.loop).result(10)


@contextmanager
def proxy_outside(host: str, port: int) -> Iterator[Outside]:
    """As `open_proxy`, in a thread."""
    opened, closing = threading.Event(), asyncio.Event()
    made: list[Outside] = []

    async def run() -> None:
        async with open_proxy(host, port) as proxy:
            made.append(Outside(proxy, asyncio.get_running_loop()))
            opened.set()
            await closing.wait()

    thread = threading.Thread(target=asyncio.run, args=(run(),), name=f"proxy-{port}")
    thread.start()
    opened.wait(10)
    try:
        yield made[0]
    finally:
        made[0].loop.call_soon_threadsafe(closing.set)
        thread.join()
