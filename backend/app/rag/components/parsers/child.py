"""The parsing process: `python -m app.rag.components.parsers.child FD PARENT_PID`.

It loads the parsers once, and forks for every job that comes over the socket FD. So each file gets a
process of its own, with its own limits and without any trace of files before it, in a few milliseconds.
The answer goes into an anonymous file, whose size the kernel bounds; only when the fork has ended well
is it passed on. A fork that dies is reported by what killed it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import tempfile
import traceback
from importlib import import_module
from typing import IO, Final

from app.core.sandbox.confinement import leave_network
from app.rag.components.parsers import sandbox, wire
from app.rag.components.parsers.errors import ParseError
from app.rag.components.parsers.parse import PARSERS, parse_file

_RSS_UNIT: Final = 1 if sys.platform == "darwin" else 1024
_OUT_OF_TIME: Final = frozenset({signal.SIGALRM, signal.SIGXCPU})


def main(descriptor: int, parent: int) -> None:
    """Serves jobs until the socket closes."""
    leave_network()
    sandbox.die_with_parent(parent)  # afterwards, because new credentials clear the signal
    with socket.socket(fileno=descriptor) as channel:
        channel.sendall(wire.pack({"ready": True}))
        to_load = [module for module, _ in PARSERS.values()]
        while True:
            _load_while_idle(channel, to_load)
            job = _receive(channel)
            if job is None:
                return
            _serve(channel, job)


def _load_while_idle(channel: socket.socket, modules: list[str]) -> None:
    """Imports what forks will need until a job is waiting; a fork imports by itself what is still missing."""
    while modules and not select.select([channel], [], [], 0)[0]:
        import_module(modules.pop(0))
        if not modules:
            sandbox.freeze()


def _receive(channel: socket.socket) -> wire.Job | None:
    header = _read(channel, wire.HEADER.size)
    if header is None:
        return None
    size, _ = wire.HEADER.unpack(header)
    body = _read(channel, size)
    return None if body is None else wire.unpack_job(json.loads(body))


def _read(channel: socket.socket, size: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < size:
        part = channel.recv(size - len(parts))
        if not part:
            return None
        parts += part
    return bytes(parts)


def _serve(channel: socket.socket, job: wire.Job) -> None:
    with _anonymous_file() as output:
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            channel.close()
            _parse_and_exit(output, job, parent)
        _, status, usage = os.wait4(pid, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            channel.sendfile(output, 0)
        else:
            channel.sendall(wire.pack_failure(_death(code, usage.ru_maxrss * _RSS_UNIT, job)))


def _anonymous_file() -> IO[bytes]:
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("parsed"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _parse_and_exit(output: IO[bytes], job: wire.Job, parent: int) -> None:
    """The fork: parses one file into `output`. Never returns."""
    code = 1
    try:
        sandbox.die_with_parent(parent)
        sandbox.confine(job.limits, output_bytes=wire.most_bytes(job.limits))
        _write(output, _answer(job))
        code = 0
    except BaseException:
        traceback.print_exc()  # a fault of ours; to the log of the process that owns the pool
    finally:
        os._exit(code)


def _write(output: IO[bytes], answer: bytes) -> None:
    try:
        left = memoryview(answer)
        while left:
            left = left[output.write(left) :]
    except OSError:  # beyond the size limit
        output.seek(0)
        output.truncate()
        output.write(wire.pack_error("too_large", "The parsed document is larger than allowed"))


def _answer(job: wire.Job) -> bytes:
    try:
        return wire.pack_draft(parse_file(job.path, job.name, job.limits, media_type=job.media_type))
    except ParseError as error:
        return wire.pack_failure(error)
    except MemoryError:
        pass  # answered below, when the traceback no longer holds what filled the memory
    except OSError as error:
        return wire.pack_error(wire.UNREADABLE, f"{job.name!r} cannot be read: {error.strerror or error}")
    except RecursionError:
        return wire.pack_error("corrupt", f"{job.name!r} nests deeper than any document does")
    except Exception as error:
        return wire.pack_error(wire.BROKEN, f"{job.name!r} cannot be parsed: {type(error).__name__}: {error}")
    return wire.pack_failure(_out_of_memory(job))


def _death(code: int, resident_bytes: int, job: wire.Job) -> ParseError:
    """What it means that a fork ended with `code`, negative for a signal."""
    if -code in _OUT_OF_TIME:
        return ParseError("timeout", f"{job.name!r} took longer than {job.limits.timeout_s:g} s to parse")
    if -code == signal.SIGKILL:
        return ParseError("out_of_memory", f"Parsing {job.name!r} was killed from outside", retriable=True)
    # Libraries end themselves when an allocation fails; a crash with little memory used is something else.
    if resident_bytes > job.limits.memory_bytes // 2:
        return _out_of_memory(job)
    reason = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ParseError("corrupt", f"{job.name!r} is damaged in a way that stops its parser ({reason})")


def _out_of_memory(job: wire.Job) -> ParseError:
    return ParseError(
        "out_of_memory", f"{job.name!r} needs more than {job.limits.memory_bytes} bytes of memory to parse"
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
