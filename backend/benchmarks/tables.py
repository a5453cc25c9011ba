"""Results for people (Markdown) and for programs (JSON)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.registry import Benchmark, Row

_COLUMNS = ("what", "unit", "ours", "floor", "ours / floor", "aim")


def markdown(benchmark: Benchmark, rows: Sequence[Row]) -> str:
    """A heading, what the floor is, and a table."""
    cells = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    lines = [_line(line, widths) for line in cells]
    rule = "|".join(
        ["", *("-" * (width + 1) + (":" if i > 1 else "-") for i, width in enumerate(widths)), ""]
    )
    return "\n".join(
        [f"### {benchmark.name}", "", f"Floor: {benchmark.floor}.", "", lines[0], rule, *lines[1:], ""]
    )


def document(benchmark: Benchmark, rows: Sequence[Row], *, duration_s: float) -> dict[str, Any]:
    """The same as JSON."""
    return {
        "name": benchmark.name,
        "floor": benchmark.floor,
        "duration_s": round(duration_s, 1),
        "rows": [asdict(row) | {"ratio": row.ratio} for row in rows],
    }


def _cells(row: Row) -> tuple[str, ...]:
    aim = "" if row.aim is None else f"≤ {row.aim:g}"
    return row.what, row.unit, _number(row.ours), _number(row.floor), f"{row.ratio:.2f}", aim


def _number(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:], widths[2:], strict=True)]
    return f"| {' | '.join(left + right)} |"
