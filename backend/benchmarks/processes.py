"""What processes have used so far. Only differences mean something, but for the memory."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextlib import suppress

import psutil


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Seconds of CPU, user and system, of these processes alone (resolution: 10 ms on Linux)."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def tree_cpu_s(root: psutil.Process) -> float:
    """The same of a process and all it has started, those that have ended meanwhile included."""
    total = 0.0
    for process in (root, *root.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def own_cpu_s() -> float:
    """This process, all threads."""
    return time.process_time()


def resident_mb(process: psutil.Process) -> float:
    """Resident memory in MB (10^6 bytes)."""
    return float(process.memory_info().rss) / 1e6


def running_module(root: psutil.Process, module: str) -> list[psutil.Process]:
    """Children of `root` that were started as `python -m module`."""
    return [child for child in root.children() if module in child.cmdline()]


def used(before: Mapping[str, float], after: Mapping[str, float], *, per: float = 1) -> dict[str, float]:
    """The differences of two readings by name, divided by `per`."""
    return {name: (after[name] - before[name]) / per for name in before}
