"""How long `orrery serve` takes to be ready, and what it holds then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.children import data_folder, platform, server
from benchmarks.processes import cpu_s, resident_mb, tree_cpu_s
from benchmarks.registry import Report, Row, Scale, benchmark

_READY_CPU_S = 6.0
_MEMORY_MB = 300.0


@dataclass(frozen=True, slots=True)
class _Start:
    wall_s: float
    cpu_s: float
    tree_cpu_s: float
    rss_mb: float
    cpu: dict[str, float]


@benchmark("startup", floor="a FastAPI application with one route, from its command to its first answer")
async def startup(scale: Scale) -> Report:
    ours, bare = [], []
    with data_folder() as data_dir:
        first = _platform(data_dir)
        for _ in range(scale.pick(1, 2, 5)):
            ours.append(_platform(data_dir))
            bare.append(_hello(data_dir))
    again, floor = (min(starts, key=lambda start: start.tree_cpu_s) for starts in (ours, bare))
    ratios = [mine.tree_cpu_s / other.tree_cpu_s for mine, other in zip(ours, bare, strict=True)]
    spread = max(ratios) / min(ratios) - 1 if len(ratios) > 1 else None
    rows = [
        Row("first start, until ready (makes the database)", "s", first.wall_s, floor.wall_s),
        Row("warm start, until ready", "s", again.wall_s, floor.wall_s),
        Row("warm start, CPU of the API process", "CPU s", again.cpu_s, floor.cpu_s),
        Row(
            "warm start, CPU of all processes until then",
            "CPU s",
            again.tree_cpu_s,
            floor.tree_cpu_s,
            budget=_READY_CPU_S,
            spread=spread,
        ),
        Row(
            "memory of the API process, before the embedder",
            "MB",
            again.rss_mb,
            floor.rss_mb,
            budget=_MEMORY_MB,
        ),
    ]
    return Report(rows, {"warm start": again.cpu, "floor": floor.cpu})


def _platform(data_dir: Path) -> _Start:
    with platform(data_dir, worker=True) as running:
        process = running.child.process
        return _Start(
            running.child.wall_s,
            cpu_s([process]),
            tree_cpu_s(process),
            resident_mb(process),
            running.cpu(),
        )


def _hello(data_dir: Path) -> _Start:
    with server("benchmarks.floors.hello", data_dir=data_dir) as child:
        used = cpu_s([child.process])
        return _Start(child.wall_s, used, used, resident_mb(child.process), {"API": used})
