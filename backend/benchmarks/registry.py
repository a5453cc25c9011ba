"""The benchmarks by name, and what they give back."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, TypeVar

import benchmarks

T = TypeVar("T")


class Scale(IntEnum):
    """How much work a benchmark does. `TINY` shows that it runs; its figures mean nothing."""

    TINY = 0
    DEFAULT = 1
    FULL = 2

    def pick(self, tiny: T, default: T, full: T) -> T:
        return (tiny, default, full)[self]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure, the same for both sides.

    `aim` is the ratio that we promise to stay below, `budget` the most that ours may be, in its unit.
    `spread` is how far the rounds were apart: (highest ratio − lowest) / lowest; None for a single one.
    """

    what: str
    unit: str
    ours: float
    floor: float
    aim: float | None = None
    budget: float | None = None
    spread: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.floor if self.floor else float("inf")

    @property
    def met(self) -> bool | None:
        """Whether aim and budget are kept; None where nothing is promised."""
        kept = []
        if self.aim is not None:
            kept.append(self.ratio <= self.aim)
        if self.budget is not None:
            kept.append(self.ours <= self.budget)
        return all(kept) if kept else None


@dataclass(frozen=True, slots=True)
class Report:
    """What a benchmark found. `cpu` is by what was done, then by process, in `cpu_unit`."""

    rows: Sequence[Row]
    cpu: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    cpu_unit: str = "CPU s"


Measure = Callable[[Scale], Coroutine[Any, Any, Report]]


@dataclass(frozen=True, slots=True)
class Benchmark:
    """`floor` says in a few words what ours is compared with."""

    name: str
    floor: str
    measure: Measure


BENCHMARKS: dict[str, Benchmark] = {}


def benchmark(name: str, *, floor: str) -> Callable[[Measure], Measure]:
    """Registers an async function of a `Scale` that answers a report; a name can be taken once."""

    def register(measure: Measure) -> Measure:
        if name in BENCHMARKS:
            raise ValueError(f"there are two benchmarks {name!r}")
        BENCHMARKS[name] = Benchmark(name, floor, measure)
        return measure

    return register


def load_all() -> dict[str, Benchmark]:
    """Imports every module of this package, so that all benchmarks are known; in order of their names."""
    for module in iter_modules(benchmarks.__path__):
        if not module.ispkg and not module.name.startswith("_"):
            import_module(f"benchmarks.{module.name}")
    return dict(sorted(BENCHMARKS.items()))
