"""`orrery doctor`."""

from __future__ import annotations

import asyncio
import json
import os

import typer

from app.cli.commands.output import AsJson, console_for
from app.cli.doctor import examination, report

cli = typer.Typer()


@cli.command()
def doctor(as_json: AsJson = False) -> None:
    """Check settings, machine, data folder and services, and say what to do. Starts nothing."""
    found = asyncio.run(examination.examine(os.environ))
    if as_json:
        typer.echo(json.dumps(report.document(found)))
    else:
        report.show(console_for(as_json), found)
    if examination.has_failures(found):
        raise typer.Exit(1)
