"""Results for people: Markdown tables of figures, of CPU by process, and of what changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.registry import Benchmark, Report, Row

_FIGURES = ("what", "unit", "ours", "floor", "ours / floor", "spread", "promise", "met")
_CHANGES = ("benchmark", "what", "before", "now", "change", "met")
_LEFT = frozenset(("what", "unit", "promise", "met", "benchmark"))
_SHOWN_CHANGE = 0.1


def markdown(benchmark: Benchmark, report: Report) -> str:
    """A heading, what the floor is, the figures, and where the CPU time went."""
    parts = [f"### {benchmark.name}", f"Floor: {benchmark.floor}."]
    parts.append(_table(_FIGURES, [_figures(row) for row in report.rows]))
    if report.cpu:
        parts.append(_cpu(report.cpu, report.cpu_unit))
    return "\n\n".join(parts) + "\n"


def changes(before: Mapping[tuple[str, str], float], now: Mapping[str, Sequence[Row]]) -> str:
    """Ratios of an earlier run, by benchmark and row, beside those of this one where both have the row."""
    lines = [
        (name, row.what, f"{before[name, row.what]:.2f}", f"{row.ratio:.2f}", change, _met(row))
        for name, rows in now.items()
        for row in rows
        if (name, row.what) in before
        for change in [_change(before[name, row.what], row.ratio)]
    ]
    return _table(_CHANGES, lines) if lines else "Nothing of that file was measured now."


def machine(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def _change(before: float, now: float) -> str:
    """Empty where it is within what noise does."""
    if not before or abs(now / before - 1) < _SHOWN_CHANGE:
        return ""
    return f"{now / before - 1:+.0%}"


def _figures(row: Row) -> tuple[str, ...]:
    spread = "" if row.spread is None else f"{row.spread:.0%}"
    ratio = f"{row.ratio:.2f}"
    return row.what, row.unit, number(row.ours), number(row.floor), ratio, spread, _promise(row), _met(row)


def _promise(row: Row) -> str:
    said = [] if row.aim is None else [f"≤ {row.aim:g} × floor"]
    if row.budget is not None:
        said.append(f"≤ {row.budget:g} {row.unit}")
    return ", ".join(said)


def _met(row: Row) -> str:
    return "" if row.met is None else "yes" if row.met else "**no**"


def _cpu(cpu: Mapping[str, Mapping[str, float]], unit: str) -> str:
    processes = list(dict.fromkeys(process for used in cpu.values() for process in used))
    lines = [
        (what, *(number(used[process]) if process in used else "" for process in processes))
        for what, used in cpu.items()
    ]
    return _table(("what", *(f"{process}, {unit}" for process in processes)), lines)


def _table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    left = [column in _LEFT for column in columns]
    widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
    marks = [
        "-" * (width + 1) + ("-" if is_left else ":") for width, is_left in zip(widths, left, strict=True)
    ]
    return "\n".join(
        [_line(columns, widths, left), f"|{'|'.join(marks)}|"] + [_line(line, widths, left) for line in lines]
    )


def _line(cells: Sequence[str], widths: Sequence[int], left: Sequence[bool]) -> str:
    padded = [
        cell.ljust(width) if is_left else cell.rjust(width)
        for cell, width, is_left in zip(cells, widths, left, strict=True)
    ]
    return f"| {' | '.join(padded)} |"


def number(value: float) -> str:
    """Three significant digits, and all of those before the point."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{digits}f}"
