"""How long `orrery serve` takes to be ready, and what it holds then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import data_folder, platform, server
from benchmarks.processes import cpu_s, resident_mb, tree_cpu_s
from benchmarks.registry import Row, Scale, benchmark


@dataclass(frozen=True, slots=True)
class _Start:
    wall_s: float
    cpu_s: float
    tree_cpu_s: float
    rss_mb: float


@benchmark("startup", floor="a FastAPI application with one route, from its command to its first answer")
async def startup(scale: Scale) -> list[Row]:
    repeats = scale.pick(1, 1, 5)
    with data_folder() as data_dir:
        first = _platform(data_dir)
        again = min((_platform(data_dir) for _ in range(repeats)), key=lambda start: start.cpu_s)
        bare = min((_hello(data_dir) for _ in range(repeats)), key=lambda start: start.cpu_s)
    return [
        Row("first start, until ready (makes the database)", "s", first.wall_s, bare.wall_s),
        Row("start, until ready", "s", again.wall_s, bare.wall_s),
        Row("start, CPU of the API process", "CPU s", again.cpu_s, bare.cpu_s),
        Row("start, CPU of all processes until then", "CPU s", again.tree_cpu_s, bare.tree_cpu_s),
        Row("memory of the API process, before the embedder", "MB", again.rss_mb, bare.rss_mb),
    ]


def _platform(data_dir: Path) -> _Start:
    with platform(data_dir, worker=True) as running:
        process = running.child.process
        return _Start(running.child.wall_s, cpu_s([process]), tree_cpu_s(process), resident_mb(process))


def _hello(data_dir: Path) -> _Start:
    with server("benchmarks.floors.hello", data_dir=data_dir) as child:
        used = cpu_s([child.process])
        return _Start(child.wall_s, used, used, resident_mb(child.process))
