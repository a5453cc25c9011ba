"""The command `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmarks import tables
from benchmarks.machine import describe
from benchmarks.registry import Benchmark, Scale, load_all
from benchmarks.results import Results, earlier_ratios

RESULTS = Path(__file__).with_name("results")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named benchmarks, or all, one after another; prints each as soon as it is measured."""
    known = load_all()
    parser = _parser(known)
    wanted = parser.parse_args(arguments)
    if unknown := sorted(set(wanted.names) - known.keys()):
        parser.error(f"there is no benchmark {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    try:
        against = earlier_ratios(wanted.against) if wanted.against else None
    except ValueError as error:
        parser.error(str(error))
    scale = Scale.FULL if wanted.full else Scale.DEFAULT
    results = Results(scale.name.lower(), describe())
    if not wanted.json:
        print(tables.machine(results.machine), end="\n\n", flush=True)
    for name in wanted.names or known:
        _measure(known[name], scale, results, show=not wanted.json)
    results.write(wanted.out, against)
    if wanted.json:
        print(json.dumps(results.document(), indent=2))
    elif against is not None:
        print(tables.changes(against, results.rows))
    print(f"written to {wanted.out}: bench.json, bench.md, bench.png", file=sys.stderr)
    return 0


def _parser(known: dict[str, Benchmark]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our cost over the bare parts.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; by default all")
    parser.add_argument("--full", action="store_true", help="full size: takes many times as long")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR", help=f"by default {RESULTS}")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier bench.json to compare with")
    return parser


def _measure(benchmark: Benchmark, scale: Scale, results: Results, *, show: bool) -> None:
    print(f"measuring {benchmark.name} …", file=sys.stderr, flush=True)
    began = time.perf_counter()
    report = uvloop.run(benchmark.measure(scale))
    results.add(benchmark, report, time.perf_counter() - began)
    if show:
        print(tables.markdown(benchmark, report), flush=True)


def _forget_settings() -> None:
    """The operator's settings of the platform would make figures incomparable."""
    for name in [name for name in os.environ if name.startswith("ORRERY_")]:
        del os.environ[name]


if __name__ == "__main__":
    _forget_settings()
    sys.exit(main())
