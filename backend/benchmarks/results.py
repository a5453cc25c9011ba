"""Results as files: `bench.json` for programs and comparisons, `bench.md` and `bench.png` for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.charts import draw
from benchmarks.registry import Benchmark, Report, Row


@dataclass(slots=True)
class Results:
    """All that one call of the command has measured so far."""

    scale: str
    machine: Mapping[str, str]
    reports: dict[str, Report] = field(default_factory=dict)
    benchmarks: dict[str, Benchmark] = field(default_factory=dict)
    durations_s: dict[str, float] = field(default_factory=dict)

    def add(self, benchmark: Benchmark, report: Report, duration_s: float) -> None:
        self.benchmarks[benchmark.name] = benchmark
        self.reports[benchmark.name] = report
        self.durations_s[benchmark.name] = duration_s

    @property
    def rows(self) -> dict[str, Sequence[Row]]:
        return {name: report.rows for name, report in self.reports.items()}

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "scale": self.scale,
            "machine": dict(self.machine),
            "benchmarks": [
                {
                    "name": name,
                    "floor": self.benchmarks[name].floor,
                    "duration_s": round(self.durations_s[name], 1),
                    "rows": [asdict(row) | {"ratio": row.ratio, "met": row.met} for row in report.rows],
                    "cpu": {what: dict(used) for what, used in report.cpu.items()},
                    "cpu_unit": report.cpu_unit,
                }
                for name, report in self.reports.items()
            ],
        }

    def markdown(self, against: Mapping[tuple[str, str], float] | None = None) -> str:
        parts = [f"# Benchmarks ({self.scale} size)", tables.machine(self.machine)]
        parts += [tables.markdown(self.benchmarks[name], report) for name, report in self.reports.items()]
        if against is not None:
            parts += ["### Compared with the earlier run", tables.changes(against, self.rows)]
        return "\n\n".join(parts) + "\n"

    def write(self, folder: Path, against: Mapping[tuple[str, str], float] | None = None) -> None:
        """Replaces the three files in `folder`, which is made where it is missing."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bench.json").write_text(json.dumps(self.document(), indent=2) + "\n", "utf-8")
        (folder / "bench.md").write_text(self.markdown(against), "utf-8")
        draw(self.rows, folder / "bench.png", title=f"Our cost over the bare parts ({self.scale} size)")


def earlier_ratios(path: Path) -> dict[tuple[str, str], float]:
    """Ratios by benchmark and row of a `bench.json`; `ValueError` where the file is none."""
    try:
        found = json.loads(path.read_text("utf-8"))
        return {
            (one["name"], row["what"]): float(row["ratio"])
            for one in found["benchmarks"]
            for row in one["rows"]
        }
    except OSError as error:
        raise ValueError(f"cannot read {str(path)!r}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{str(path)!r} is not a bench.json of this command") from error
