"""What a process gives up before it works for strangers. Linux has all of it; elsewhere what there is.

As a program, `python -I -S confinement.py MEMORY_BYTES ONLINE PROGRAM ARGUMENT…`, it gives up what it can
and becomes PROGRAM, with an empty environment. It imports little: it must start in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
_STANDARD_STREAMS: Final = 3
_DESCRIPTORS: Final = 64


def leave_network() -> None:
    """Moves into an empty network namespace where the kernel allows it, and gives up new privileges."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # Another user needs a user namespace first, in which a superuser would lose the right to read files.
        libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def bound_files(*, largest_bytes: int) -> None:
    """No dumps of memory, few open files, and none that becomes larger than that."""
    lower(resource.RLIMIT_CORE, 0)
    lower(resource.RLIMIT_FSIZE, largest_bytes)
    lower(resource.RLIMIT_NOFILE, _DESCRIPTORS)


def lower(what: int, value: int) -> None:
    """Sets a limit of this process, for good, where it is not lower already."""
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def address_space() -> int:
    """Bytes that this process has mapped."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[0]) * resource.getpagesize()


def become(program: str, arguments: list[str], *, memory_bytes: int, online: bool) -> None:
    """`memory_bytes` of address space. `online`: the program leaves the network and the like by itself."""
    os.closerange(_STANDARD_STREAMS, os.sysconf("SC_OPEN_MAX"))
    bound_files(largest_bytes=0)
    if sys.platform == "linux":
        lower(resource.RLIMIT_AS, memory_bytes)
    if not online:
        leave_network()
    os.execve(program, [program, *arguments], {})  # noqa: S606  (the point of it)


if __name__ == "__main__":
    _, _memory, _online, _program, *_arguments = sys.argv
    become(_program, _arguments, memory_bytes=int(_memory), online=_online == "online")
