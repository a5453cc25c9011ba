"""The findings, for people and for programs."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from app.cli.doctor.examination import Found, worst
from app.cli.doctor.finding import Level

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def document(found: list[Found]) -> dict[str, Any]:
    return {"level": worst(found), "findings": [each.document() for each in found]}


def show(console: Console, found: list[Found]) -> None:
    """Grouped by area, each remedy below its finding; lines are as long as they are."""
    area = ""
    for each in found:
        if each.area != area:
            area = each.area
            console.print(f"[bold]{escape(area)}[/]")
        finding = each.finding
        style = _STYLES[finding.level]
        console.print(f"  [{style}]{finding.level:<4}[/]  {escape(finding.what)}", soft_wrap=True)
        if finding.remedy:
            console.print(f"        → {escape(finding.remedy)}", soft_wrap=True)
    counts = {level: sum(each.finding.level is level for each in found) for level in Level}
    console.print(
        f"{counts[Level.FAIL]} to repair, {counts[Level.WARN]} to think about, {counts[Level.OK]} fine"
    )
