"""The command `orrery`."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape

from app.core.errors import AppError


def main() -> None:
    """Entry point. An expected failure is one sentence on standard error and exit code 1."""
    from app.cli.commands import cli  # noqa: PLC0415  (so that a broken import is reported, too)

    try:
        cli()
    except AppError as error:
        out = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        out.print(f"[bold red]Error:[/] {escape(error.detail)}")
        for found in error.errors:
            out.print(f"  {found.pointer}: {found.message}", markup=False)
        sys.exit(1)
