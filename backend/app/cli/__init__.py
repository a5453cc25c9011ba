"""The command `orrery`."""

from __future__ import annotations

import errno
import sys

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from app.cli.undecided import Undecided
from app.core.errors import AppError


def main() -> None:
    """Entry point. An expected failure is one sentence on standard error and exit code 1 (`Undecided`: 2)."""
    try:
        from app.cli.commands import cli  # noqa: PLC0415  (so that a broken import is reported, too)

        cli()
    except ImportError as error:
        _say(f"A package of Orrery cannot be imported ({error}): run 'make setup' on this machine again.")
        sys.exit(1)
    except ValidationError as error:
        wrong = error.errors()[0]
        name = f"ORRERY_{'_'.join(map(str, wrong['loc'])).upper()}"
        _say(f"{name} is {wrong['input']!r}: {wrong['msg']}.")
        sys.exit(1)
    except AppError as error:
        _say(error.detail)
        for found in error.errors:
            Console(stderr=True, highlight=False, soft_wrap=True).print(
                f"  {found.pointer}: {found.message}", markup=False
            )
        sys.exit(error.exit_code if isinstance(error, Undecided) else 1)
    except OSError as error:  # a file of ours, a full disk; what the database says is translated elsewhere
        if error.filename is None and error.errno != errno.ENOSPC:
            raise
        place = f" at {str(error.filename)!r}" if error.filename is not None else ""
        _say(f"{error.strerror}{place}: repair that, then try again.")
        sys.exit(1)


def _say(sentence: str) -> None:
    out = Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
    out.print(f"[bold red]Error:[/] {escape(sentence)}")
