"""The ratios as one picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path

from benchmarks.registry import Row

_COLORS = {True: "#2a7f4f", False: "#b5342b", None: "#6b7a8f"}
_INCHES_PER_ROW = 0.32


def draw(rows: Mapping[str, Sequence[Row]], path: Path, *, title: str) -> None:
    """A bar per row, ours over the floor on a logarithmic axis; promised limits are ticks across the bars."""
    # heavy, and needed for this picture only
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    shown = [
        (name, row) for name, own in rows.items() for row in own if isfinite(row.ratio) and row.ratio > 0
    ]
    figure = Figure(figsize=(11, 1.4 + _INCHES_PER_ROW * len(shown)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(shown))
    axes.barh(places, [row.ratio for _, row in shown], color=[_COLORS[row.met] for _, row in shown])
    axes.set_yticks(places, [f"{name}: {row.what}" for name, row in shown], fontsize=8)
    for place, (_, row) in zip(places, shown, strict=True):
        axes.text(row.ratio, place, f" {row.ratio:.2f}", va="center", fontsize=8)
        if row.aim is not None:
            axes.plot([row.aim, row.aim], [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set_xlabel("ours / floor   (black tick: promised; green: kept, red: not kept)")
    axes.set_title(title)
    figure.savefig(path, dpi=120)
