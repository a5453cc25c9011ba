"""What keeps a parsing process small, offline and mortal. Linux has all of it; elsewhere what there is."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from math import ceil
from pathlib import Path
from typing import Final

from app.rag.components.parsers.limits import ParseLimits

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends; ends at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def leave_network() -> None:
    """Moves into an empty network namespace where the kernel allows it, and gives up new privileges."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        # Another user needs a user namespace first, in which a superuser would lose the right to read files.
        libc.unshare(_CLONE_NEWNET if os.geteuid() == 0 else _CLONE_NEWUSER | _CLONE_NEWNET)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def confine(limits: ParseLimits, *, output_bytes: int) -> None:
    """Bounds this process: memory, CPU and wall time, size of files; the kernel ends it beyond them."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_FSIZE, output_bytes)
    _lower(resource.RLIMIT_NOFILE, 64)
    _lower(resource.RLIMIT_CPU, ceil(limits.timeout_s) + 1)
    if sys.platform == "linux":
        _lower(resource.RLIMIT_AS, _address_space() + limits.memory_bytes)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Not caught, so it ends the process even inside a library that never comes back to Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.timeout_s)


def freeze() -> None:
    """Before forking: what exists now is never collected, so that children share its memory."""
    gc.collect()
    gc.freeze()


def _lower(what: int, value: int) -> None:
    _, hard = resource.getrlimit(what)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(what, (value, value))


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
