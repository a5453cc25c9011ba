"""The command `orrery`."""

from __future__ import annotations

import sys

from rich.console import Console

from app.core.errors import AppError


def main() -> None:
    """Entry point. An expected failure is one sentence on standard error and exit code 1."""
    from app.cli.commands import cli  # noqa: PLC0415  (so that a broken import is reported, too)

    try:
        cli()
    except AppError as error:
        Console(stderr=True, highlight=False).print(f"[bold red]Error:[/] {error.detail}", soft_wrap=True)
        for found in error.errors:
            Console(stderr=True, highlight=False).print(f"  {found.pointer}: {found.message}", markup=False)
        sys.exit(1)
