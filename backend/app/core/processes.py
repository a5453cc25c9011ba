"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from signal import SIGKILL, Signals

_PR_SET_PDEATHSIG = 1
# Looked up now: between fork and exec nothing may take a lock that another thread held.
_prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None


def die_with(parent: int, number: Signals) -> Callable[[], None]:
    """What a child of `parent` runs before exec (after its user changed, which clears the signal).

    On Linux the kernel then sends it `number` when the thread that forked it ends; elsewhere it lives on.
    """

    def prepare() -> None:
        if _prctl is not None and _prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
            os._exit(126)
        if os.getppid() != parent:
            os._exit(125)  # the parent died before the signal was set

    return prepare


def die_with_parent() -> None:
    """Ends this process as soon as its parent does."""
    die_with(os.getppid(), SIGKILL)()
