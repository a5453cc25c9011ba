"""`orrery validate`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.cli.client import Client, open_client
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.undecided import undecided
from app.cli.validating import Validated, show
from app.cli.validating import validate as validate_file
from app.core.config import get_settings
from app.core.report import Report

cli = typer.Typer()


@cli.command()
def validate(
    file: Annotated[Path, typer.Argument(help="An agent as JSON or YAML; - is standard input.")],
    server: Annotated[
        bool, typer.Option("--server", help="Have the server check, which knows the project's names, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check an agent document, and print everything that is wrong with it, each with its remedy.

    Without --server nothing is asked for: what the bindings name is not looked up then.
    Exit codes: 0 valid, 1 invalid, 2 the file cannot be read or the server cannot be asked.
    """
    with undecided():
        done = _by_server(file) if server else validate_file(file)
    if as_json:
        typer.echo(json.dumps(done.document()))
    else:
        show(console_for(as_json), done)
    if done.errors:
        raise typer.Exit(1)


def _by_server(file: Path) -> Validated:
    found = find_server(get_settings())

    def check(document: Any) -> Report:
        return _asked(client, document)

    with open_client(found) as client:
        return validate_file(file, check, checked_by=found.url)


def _asked(client: Client, document: Any) -> Report:
    return Report(issues=client.post("/agents/validate", {"graph": document})["issues"])
