"""Keeping the garbage collector off what stays: modules, routes, models."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_YOUNG = 5_000


def collect_seldom() -> None:
    """For processes that execute runs, whose many objects nearly all go by themselves.

    A run leaves about three hundred behind in cycles; by default each second run would be interrupted.
    """
    gc.set_threshold(_YOUNG)


@contextmanager
def kept() -> Iterator[None]:
    """What is there at the end of the block is never looked at by the collector again.

    Without it a tenth of a start goes into collections that find nothing, and each full collection of a
    running process stops everything while it walks through all modules. For blocks that load something once:
    cycles of garbage that anybody makes meanwhile stay, too.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
