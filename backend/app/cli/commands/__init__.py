"""Every command of `orrery`. `--json` after a command prints one JSON document; exit code 1 is a failure."""

from __future__ import annotations

import os
import sys
from collections import UserDict
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_group

from app import __version__
from app.core.garbage import kept

_MODULES = {
    "serve": "platform",
    "worker": "platform",
    "migrate": "platform",
    "doctor": "examining",
    "demo": "demonstration",
    "ask": "questions",
    "ingest": "collections",
    "search": "collections",
    "eval": "evaluation",
    "validate": "validation",
    "explain": "explanation",
    "runs": "descendants",
    "inbox": "inbox",
    "answer": "inbox",
    "agents": "agents",
    "export": "agents",
    "diff": "agents",
    "plan": "agents",
    "apply": "agents",
    "keys": "administration",
    "secrets": "administration",
    "users": "administration",
}


class _OnDemand(UserDict[str, Any]):
    """Commands by name, each imported when it is asked for: to import all takes a second."""

    def __getitem__(self, name: str) -> Any:
        path = f"{__name__}.{self.data[name]}"
        if path not in sys.modules:
            with kept():
                import_module(path)
        return get_group(sys.modules[path].cli).commands[name]


class _Commands(TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _OnDemand(_MODULES)


cli = typer.Typer(
    cls=_Commands, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__
)


@cli.callback(invoke_without_command=True)
def common(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    data_dir: Annotated[
        Path | None, typer.Option(help="Data folder (ORRERY_DATA_DIR, default .orrery).")
    ] = None,
) -> None:
    if data_dir is not None:
        os.environ["ORRERY_DATA_DIR"] = str(data_dir)
    if version:
        typer.echo(__version__)
        raise typer.Exit
