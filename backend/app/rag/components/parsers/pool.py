"""Parsing in limited child processes, a few kept warm; plain subprocesses, as daemonic workers need."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from app.core.errors import AppError, Unavailable
from app.rag.components.parsers import wire
from app.rag.components.parsers.document import document_from
from app.rag.components.parsers.errors import PARSE_CODES, ParseError
from app.rag.components.parsers.limits import ParseLimits
from app.rag.types import ParsedDocument

_ROOT: Final = Path(__file__).parents[4]  # the folder that holds the package `app`
_MODULE: Final = "app.rag.components.parsers.child"
_KEPT_ENVIRONMENT: Final = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "TZ")
_START_S: Final = 60
_GRACE_S: Final = 5  # the child ends a job at its time-out itself; this long after, the pool ends the child
_LARGE_BYTES: Final = 2**18  # above it, decoding is worth a thread


class ParserPool:
    """Parses files in child processes, at most `size` at a time. Belongs to one event loop.

    A child serves `files_per_child` files and is then replaced. Use as an async context manager, or
    `close()` it: children end with the pool, and with this process however that ends.
    """

    def __init__(self, *, size: int = 2, files_per_child: int = 500) -> None:
        if size < 1 or files_per_child < 1:
            raise ValueError(f"size {size!r} and files_per_child {files_per_child!r} must be positive")
        self._files_per_child = files_per_child
        self._free = asyncio.Semaphore(size)
        self._idle: list[_Child] = []
        self._all: set[_Child] = set()
        self._closed = False

    async def parse(
        self,
        path: Path,
        name: str,
        *,
        limits: ParseLimits = ParseLimits(),  # noqa: B008  (frozen)
        media_type: str | None = None,
    ) -> ParsedDocument:
        """The document in the file `path`, which its user calls `name`; its kind is found by its content.

        `media_type` overrules the kind of a text, and is demanded of anything else. Raises `ParseError` for
        what the file is, `Unavailable` when no child starts or the file cannot be read. Time waiting for a
        free child does not count; cancelling ends the child.
        """
        job = wire.Job(path, name, limits, media_type)
        async with self._free:
            child = await self._child()
            try:
                head, text = await child.run(job)
            except (OSError, EOFError) as error:
                await self._end(child)
                raise self._lost(job, error) from error
            except BaseException:
                await self._end(child)
                raise
            if child.served >= self._files_per_child or self._closed:
                await self._end(child)
            else:
                self._idle.append(child)
        return await _document(head, text, job)

    async def close(self) -> None:
        """Ends all children, busy ones too; parsing afterwards raises `Unavailable`."""
        self._closed = True
        self._idle.clear()
        for child in list(self._all):
            await self._end(child)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _lost(self, job: wire.Job, error: Exception) -> AppError:
        """What it means that the child broke off instead of answering."""
        if self._closed:
            return Unavailable("The parser pool is closed")
        if isinstance(error, TimeoutError):
            return ParseError("timeout", f"{job.name!r} took longer than {job.limits.timeout_s:g} s to parse")
        return ParseError(
            "out_of_memory", f"The parser of {job.name!r} was killed from outside", retriable=True
        )

    async def _child(self) -> _Child:
        if self._closed:
            raise Unavailable("The parser pool is closed")
        while self._idle:
            child = self._idle.pop()
            if child.is_alive:
                return child
            await self._end(child)
        child = _Child()
        self._all.add(child)
        try:
            await child.start()
        except BaseException:
            await self._end(child)
            raise
        return child

    async def _end(self, child: _Child) -> None:
        self._all.discard(child)
        child.kill()
        # Killed, so it is only a moment; shielded, so that a cancelled task leaves no zombie.
        await asyncio.shield(asyncio.to_thread(child.process.wait))


class _Child:
    """One process of `child.py` and the socket to it."""

    def __init__(self) -> None:
        self.served = 0
        self._socket, theirs = socket.socketpair()
        with theirs:
            try:
                self.process = _spawn(theirs.fileno())
            except OSError as error:
                self._socket.close()
                raise Unavailable(f"A parser process did not start: {error}") from error
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    async def start(self) -> None:
        """Waits until the child can take jobs."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=self._socket)
        try:
            async with asyncio.timeout(_START_S):
                await self._receive(2**16)
        except (OSError, EOFError) as error:
            raise Unavailable(f"A parser process did not start: {error!r}") from error

    async def run(self, job: wire.Job) -> tuple[bytes, bytes]:
        """The answer to one job: JSON and text. Raises `OSError` or `EOFError` when the child breaks off."""
        assert self._writer is not None  # noqa: S101  (set by `start`)
        self.served += 1
        async with asyncio.timeout(job.limits.timeout_s + _GRACE_S):
            self._writer.write(wire.pack_job(job))
            return await self._receive(wire.most_bytes(job.limits))

    def kill(self) -> None:
        """Ends the child and a fork of it that may be at work."""
        if self.process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
        if self._writer is not None:
            self._writer.close()
        else:
            self._socket.close()

    async def _receive(self, most: int) -> tuple[bytes, bytes]:
        assert self._reader is not None  # noqa: S101  (set by `start`)
        head, text = wire.HEADER.unpack(await self._reader.readexactly(wire.HEADER.size))
        if head + text > most:
            raise EOFError(f"the answer of {head + text} bytes is longer than {most}")
        return await self._reader.readexactly(head), await self._reader.readexactly(text)


def _spawn(descriptor: int) -> subprocess.Popen[bytes]:
    """Starts a child, from this thread: the kernel ends it with the thread that started it."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", _MODULE, str(descriptor), str(os.getpid())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=[descriptor],
        cwd=_ROOT,
        env={key: os.environ[key] for key in _KEPT_ENVIRONMENT if key in os.environ},
        start_new_session=True,
    )


async def _document(head: bytes, text: bytes, job: wire.Job) -> ParsedDocument:
    if len(head) + len(text) > _LARGE_BYTES:
        return await asyncio.to_thread(_read_answer, head, text, job)
    return _read_answer(head, text, job)


def _read_answer(head: bytes, text: bytes, job: wire.Job) -> ParsedDocument:
    try:
        answer: Mapping[str, Any] = json.loads(head)
        if "error" not in answer:
            return document_from(answer, text.decode())
        error = answer["error"]
        code, detail, retriable = error["code"], str(error["detail"]), bool(error["retriable"])
    except (ValueError, KeyError, TypeError, RecursionError) as fault:
        raise ParseError("corrupt", f"The parser of {job.name!r} gave no sound answer: {fault}") from fault
    if code == wire.UNREADABLE:
        raise Unavailable(detail)
    raise ParseError(code if code in PARSE_CODES else "corrupt", detail, retriable=retriable)
