"""`orrery demo`."""

from __future__ import annotations

import json

import typer

from app.cli.commands.output import AsJson, console_for
from app.cli.demo import run_demo
from app.core.config import get_settings

cli = typer.Typer()
_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


@cli.command()
def demo(as_json: AsJson = False) -> None:
    """Ingest the sample handbook, publish an agent, and stream three cited answers."""
    console = console_for(as_json)
    try:
        result = run_demo(get_settings(), console)
    except KeyboardInterrupt:
        console.print("Interrupted: what the demo started is stopped; it can be run again at any time.")
        raise typer.Exit(_INTERRUPTED) from None
    if as_json:
        typer.echo(json.dumps(result))
