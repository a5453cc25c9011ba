"""`orrery explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.agent.graph.compiler import AgentCompiler
from app.agent.graph.explaining import Explanation, explained
from app.agent.graph.loading import load_document
from app.cli.client import open_client
from app.cli.commands.output import AsJson, console_for
from app.cli.credentials import find_server
from app.cli.explaining import show
from app.cli.validating import STDIN, read_text
from app.core.config import get_settings

cli = typer.Typer()


@cli.command()
def explain(
    what: Annotated[
        str, typer.Argument(help="An agent as JSON or YAML (a file; - is standard input), or its slug or id.")
    ],
    server: Annotated[
        bool, typer.Option("--server", help="Have the server say what the names of a file stand for, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an agent would do, in which order and with which bindings, without running it.

    A file is explained without a server unless --server is there. Exit code 1 where it is not valid.
    """
    file = Path(what)
    if file == STDIN or file.is_file():
        document = load_document(read_text(file))
        told = _asked("/agents/explain", {"graph": document}) if server else _offline(document)
    else:
        told = _asked(f"/agents/{what}/explain", {})
    if as_json:
        typer.echo(json.dumps(told))
    else:
        plan = Explanation.model_validate(told["plan"])
        show(console_for(as_json), plan, title=what, bound=told["bindings"])


def _offline(document: Any) -> dict[str, Any]:
    plan = explained(AgentCompiler().compile(document))
    return {"plan": plan.model_dump(mode="json"), "bindings": [], "issues": [], "input": None}


def _asked(path: str, body: dict[str, Any]) -> dict[str, Any]:
    with open_client(find_server(get_settings())) as client:
        told: dict[str, Any] = client.post(path, body)
        return told
