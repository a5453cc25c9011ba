"""What commands have in common in what they print."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def console_for(as_json: bool) -> Console:
    """Standard output; standard error where that belongs to the JSON document."""
    return Console(stderr=as_json, highlight=False, emoji=False)
