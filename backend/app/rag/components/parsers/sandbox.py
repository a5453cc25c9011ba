"""What keeps a parsing process small and mortal. Linux has all of it; elsewhere what there is."""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import signal
import sys
from math import ceil
from typing import Final

from app.core.sandbox.confinement import address_space, bound_files, lower
from app.rag.components.parsers.limits import ParseLimits

_PR_SET_PDEATHSIG: Final = 1


def die_with_parent(parent: int) -> None:
    """Has the kernel kill this process when its parent ends; ends at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def confine(limits: ParseLimits, *, output_bytes: int) -> None:
    """Bounds this process: memory, CPU and wall time, size of files; the kernel ends it beyond them."""
    bound_files(largest_bytes=output_bytes)
    lower(resource.RLIMIT_CPU, ceil(limits.timeout_s) + 1)
    if sys.platform == "linux":
        lower(resource.RLIMIT_AS, address_space() + limits.memory_bytes)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    # Not caught, so it ends the process even inside a library that never comes back to Python.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, limits.timeout_s)


def freeze() -> None:
    """Before forking: what exists now is never collected, so that children share its memory."""
    gc.collect()
    gc.freeze()
