"""The command `orrery`."""

from __future__ import annotations

import sys

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from app.core.errors import AppError


def main() -> None:
    """Entry point. An expected failure is one sentence on standard error and exit code 1."""
    from app.cli.commands import cli  # noqa: PLC0415  (so that a broken import is reported, too)

    try:
        cli()
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"ORRERY_{'_'.join(map(str, wrong['loc'])).upper()}"
        Console(stderr=True, highlight=False).print(
            f"Error: {name} is {wrong['input']!r}: {wrong['msg']}.", markup=False, soft_wrap=True
        )
        sys.exit(1)
    except AppError as error:
        out = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
        out.print(f"[bold red]Error:[/] {escape(error.detail)}")
        for found in error.errors:
            out.print(f"  {found.pointer}: {found.message}", markup=False)
        sys.exit(1)
