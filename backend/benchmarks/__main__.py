"""The command `python -m benchmarks`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence

import uvloop

from benchmarks.registry import Benchmark, Scale, load_all
from benchmarks.tables import document, markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the named benchmarks, or all, one after another; prints each as soon as it is measured."""
    known = load_all()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Our cost over the bare parts.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; by default all")
    parser.add_argument("--full", action="store_true", help="full size: takes many times as long")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    wanted = parser.parse_args(arguments)
    if unknown := sorted(set(wanted.names) - known.keys()):
        parser.error(f"there is no benchmark {', '.join(map(repr, unknown))}; there are {', '.join(known)}")
    scale = Scale.FULL if wanted.full else Scale.DEFAULT
    results = [_measured(known[name], scale, as_json=wanted.json) for name in wanted.names or known]
    if wanted.json:
        print(json.dumps({"scale": scale.name.lower(), "benchmarks": results}, indent=2))
    return 0


def _measured(benchmark: Benchmark, scale: Scale, *, as_json: bool) -> object:
    print(f"measuring {benchmark.name} …", file=sys.stderr, flush=True)
    began = time.perf_counter()
    rows = uvloop.run(benchmark.measure(scale))
    if not as_json:
        print(markdown(benchmark, rows), flush=True)
    return document(benchmark, rows, duration_s=time.perf_counter() - began)


def _forget_settings() -> None:
    """The operator's settings of the platform would make figures incomparable."""
    for name in [name for name in os.environ if name.startswith("ORRERY_")]:
        del os.environ[name]


if __name__ == "__main__":
    _forget_settings()
    sys.exit(main())
